package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// Size of the terminals, in characters. The drawing breaks lines where they do.
const (
	columns = 118
	rows    = 40
)

// stopTime is how long a program has to end after Ctrl-C.
const stopTime = 30 * time.Second

type line struct {
	at   time.Time
	text string
}

// terminal runs one command and notes when it says what. It is for one goroutine.
type terminal struct {
	command string
	opened  time.Time
	lines   []line // what was read up to now
	said    chan line
	cmd     *exec.Cmd
	tty     *os.File
}

// open starts a command of the shell's in a terminal of its own.
func open(dir, command string) (*terminal, error) {
	t := &terminal{command: command, opened: time.Now(), said: make(chan line, 1000)}
	t.cmd = exec.Command("sh", "-c", "exec "+command)
	t.cmd.Dir = dir
	t.cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains([]string{"DATABASE_URL", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}, name) // make pictures' own, which would change what is said
	})
	var err error
	if t.tty, err = pty.StartWithSize(t.cmd, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		return nil, fmt.Errorf("start %s: %w", command, err)
	}
	go t.read()
	return t, nil
}

// read ends with the program: the other side of the terminal is closed then.
func (t *terminal) read() {
	defer close(t.said)
	reader := bufio.NewReader(t.tty)
	for {
		text, err := reader.ReadString('\n')
		if text != "" {
			t.said <- line{time.Now(), strings.TrimRight(text, "\r\n")}
		}
		if err != nil {
			return
		}
	}
}

// until reads on to the first line that matches, and returns its submatches.
func (t *terminal) until(ctx context.Context, pattern string) ([]string, error) {
	wanted := regexp.MustCompile(pattern)
	for {
		select {
		case l, ok := <-t.said:
			if !ok {
				return nil, t.missing(pattern, errors.New("it has ended"))
			}
			if strings.ContainsRune(l.text, '\x1b') {
				return nil, fmt.Errorf("%s: %q moves the cursor or has colours, which screen.go does not draw", t.command, l.text)
			}
			t.lines = append(t.lines, l)
			if match := wanted.FindStringSubmatch(l.text); match != nil {
				return match, nil
			}
		case <-ctx.Done():
			return nil, t.missing(pattern, context.Cause(ctx))
		}
	}
}

func (t *terminal) missing(pattern string, cause error) error {
	var out strings.Builder
	for _, l := range t.lines {
		out.WriteString("\n" + shortened(l.text))
	}
	return fmt.Errorf("%s does not say %q: %w; it said:%s", shortened(t.command), pattern, cause, out.String())
}

// close types Ctrl-C, and returns when the program has ended.
func (t *terminal) close() {
	_, _ = t.tty.WriteString("\x03") // it may have ended
	kill := time.AfterFunc(stopTime, func() { _ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL) })
	defer kill.Stop()
	for range t.said { // until it has ended
	}
	_ = t.cmd.Wait() // with whatever status: Ctrl-C is how it ends
	_ = t.tty.Close()
}
