package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/internal/testkit"

	"github.com/creack/pty"
	"github.com/mattn/go-runewidth"
)

// screen is a terminal that keeps all that is written to it.
type screen struct {
	tty, master *os.File
	changed     chan struct{} // capacity 1
	done        chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

func newScreen(t *testing.T, columns, rows uint16) *screen {
	t.Helper()
	master, tty, err := pty.Open()
	testkit.NoError(t, err)
	s := &screen{tty: tty, master: master, changed: make(chan struct{}, 1), done: make(chan struct{})}
	s.resize(t, columns, rows)
	go func() {
		defer close(s.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.changed <- struct{}{}:
			default:
			}
			if err != nil {
				return // nobody has the terminal open any more
			}
		}
	}()
	t.Cleanup(func() { _ = tty.Close(); _ = master.Close(); <-s.done })
	return s
}

func (s *screen) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	testkit.NoError(t, pty.Setsize(s.master, &pty.Winsize{Cols: columns, Rows: rows}))
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// wait waits until something has been written after the first so many bytes.
func (s *screen) wait(t *testing.T, from int, want string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(s.String()[from:], want) {
		select {
		case <-s.changed:
		case <-deadline:
			t.Errorf("no %q in %q", want, s.String()[from:]) // not Fatalf: it is not the test's goroutine
			return
		}
	}
}

// closed waits for the last byte.
func (s *screen) closed(t *testing.T) string {
	t.Helper()
	testkit.NoError(t, s.tty.Close())
	<-s.done
	return s.String()
}

// Of escape sequences there are those that erase and move the cursor up, and two colours.
var moves = regexp.MustCompile(`\x1b\[J(\x1b\[\d+A)?`)

// frames returns the texts between moves of the cursor.
func frames(text string) []string {
	return moves.Split(strings.NewReplacer("\r\n", "\n", eraseLine, "").Replace(text), -1)
}

// watching serves what feed says, and watches audits 1 and 2 on a screen until the end.
func watching(t *testing.T, s *screen, feed func(send func(data string))) (exit int) {
	t.Helper()
	url := answers(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		feed(func(data string) {
			_, _ = io.WriteString(w, event("x", data))
			_ = http.NewResponseController(w).Flush()
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	return run(ctx, []string{"watch", "1", "2", "--url=" + url}, streams{s.tty, s.tty})
}

func TestWatchBars(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	s := newScreen(t, 80, 24)
	code := watching(t, s, func(send func(string)) {
		send(`{"audit_id":1,"status":"running","progress":25,"message":"Analyzing pages..."}`)
		s.wait(t, 0, " 25 %")
		send(`{"audit_id":2,"status":"running","progress":100,"message":"not over yet"}`)
		s.wait(t, 0, "100 %  0s  not over yet")
		send(`{"audit_id":2,"status":"failed","progress":80,"error":"boom"}`)
		s.wait(t, 0, "boom")
		send(`{"audit_id":1,"status":"completed","progress":100,"message":"Done"}`)
	})
	if code != exitAuditFailed {
		t.Errorf("exit status %d", code)
	}
	all := frames(s.closed(t))
	first, last := all[0], all[len(all)-2]+all[len(all)-1]
	if want := "audit 1   waiting   ░"; !strings.Contains(first, want) && !strings.Contains(strings.Join(all, ""), "audit 1   running") {
		t.Errorf("the first frame is\n%s", first)
	}
	// Times differ.
	last = regexp.MustCompile(` \d+s `).ReplaceAllString(last, " 0s ")
	want := "audit 1 \x1b[32m✓ completed\x1b[0m ████████████████████ 100 %  0s  Done\n" +
		"audit 2 \x1b[31m✗ failed\x1b[0m    ████████████████░░░░  80 %  0s  boom\n" +
		"auditstream: audit 2: failed: boom\n"
	if last != want {
		t.Errorf("at the end\n%q\nwant\n%q", last, want)
	}
}

func TestWatchBarsObeyTheTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	t.Setenv("TERM", "xterm")
	s := newScreen(t, 100, 24)
	long := strings.Repeat("Häuser 家 ", 30)
	watching(t, s, func(send func(string)) {
		send(fmt.Sprintf(`{"audit_id":1,"status":"running","progress":25,"message":%q}`, long))
		s.wait(t, 0, "25 %  0s  Häuser")
		for _, columns := range []uint16{60, 30, 10} {
			s.resize(t, columns, 24)
			from := len(s.String())
			for range 3 { // whole turns
				s.wait(t, from, "\x1b[J")
				from = len(s.String())
			}
			all := frames(s.String())
			for line := range strings.Lines(all[len(all)-2]) {
				if width := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); width > int(columns) {
					t.Errorf("a line of %d in %d columns: %q", width, columns, line)
				}
			}
		}
		s.resize(t, 100, 2) // less than two bars and the cursor
		from := len(s.String())
		s.wait(t, from, "\x1b[1A")
		send(`{"audit_id":1,"status":"completed","progress":100}`)
		send(`{"audit_id":2,"status":"completed","progress":100}`)
	})
	if text := s.closed(t); strings.Contains(text, "\x1b[3") || !strings.Contains(text, "✓ completed") {
		t.Errorf("colours, or no mark, with NO_COLOR: %q", text)
	}
}

// A terminal gets only our own escape sequences, whatever text is in a row or an answer.
func TestWatchBarsAreNotSteeredByRows(t *testing.T) {
	hostile := `\u001b]0;title\u0007\u001b[2J\r\n\b\u007f\u0085\u009b31m\u202e\u200b\u2028evil`
	for _, term := range []string{"xterm", "dumb"} {
		t.Setenv("NO_COLOR", "1")
		t.Setenv("TERM", term)
		s := newScreen(t, 200, 24)
		code := watching(t, s, func(send func(string)) {
			send(`{"audit_id":1,"status":"` + hostile + `","progress":25,"message":"` + hostile + `"}`)
			send(`{"audit_id":2,"status":"failed","progress":25,"error":"` + hostile + "\u009b31m\u007f" + `"}`)
			s.wait(t, 0, "evil")
			send(`{"error":"` + hostile + `"}`)
			send(`{"audit_id":1,"status":"completed","progress":100}`)
		})
		if code != exitAuditFailed {
			t.Errorf("exit status %d", code)
		}
		text := strings.Join(frames(s.closed(t)), "")
		for _, r := range text {
			if r != '\n' && printable(string(r)) != string(r) {
				t.Fatalf("%s: %U reached the terminal: %q", term, r, text)
			}
		}
	}
}
