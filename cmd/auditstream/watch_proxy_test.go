package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

// A proxy's own answer, whatever its status, ended the watch with status 4.
func TestU6ProxysOwnAnswerIsRetried(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		body string
	}{
		{404, "404 page not found"}, {404, `{"message":"no Route matched with those values"}`}, {404, `{"error":"not found"}`}, {404, `{"error":"Not found"}`},
		{401, "<h1>Sign in</h1>"}, {403, `{"error":"Forbidden"}`}, {405, ""}, {410, "<h1>Gone</h1>"}, {204, ""}, {302, ""}, {200, "<h1>Sign in</h1>"}, {502, ""}, {503, "soon"},
	} {
		t.Run(strings.TrimSpace(http.StatusText(c.code)+" "+c.body), func(t *testing.T) {
			t.Parallel()
			retry := events("retry: 1\n\n") // so that the test need not wait for long
			got := command(t, "watch", "1", "--url="+answers(t, retry, status(c.code, c.body), events(event("b", completed)))).want(t, exitDone)
			mustContain(t, got.out, completed)
		})
	}
	// By its text, if the header is missing.
	for code, body := range map[int]string{401: `{"error":"Missing authentication token"}`, 403: `{"error":"Cross-user access denied: audit 2"}`, 404: `{"error":"Audit not found"}`} {
		command(t, "watch", "1", "--url="+answers(t, status(code, body))).want(t, exitRefused)
	}
}

func TestU6RetryAfterIsHeededWithinBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for text, want := range map[string]time.Duration{
			"7": 7 * time.Second, "86400": watchBackoffMax, "-1": 0, "": 0, "soon": 0, "99999999999999999999": 0,
			time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat): 20 * time.Second, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
		} {
			testkit.Equal(t, retryAfter(&http.Response{Header: http.Header{"Retry-After": {text}}}), want, text)
		}
	})
	f := &rowsWatch{retry: time.Millisecond, failures: 1}
	if d := f.delay(attempt{after: 7 * time.Second}); d < 7*time.Second || d >= 8*time.Second {
		t.Errorf("asked again after %v", d)
	}
}

func TestU19HeartbeatIsHeeded(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		": heartbeat every 90 s\n\n": 3 * time.Minute, ": heartbeat every 5 s\n\n": 10 * time.Second, ": heartbeat every 1 s\n\n": 6 * time.Second,
		": heartbeat\n\n": watchSilence, ": heartbeat every 0 s\n\n": watchSilence, ": heartbeat every -1 s\n\n": watchSilence,
		": heartbeat every NaN s\n\n": watchSilence, ": heartbeat every 1e99 s\n\n": watchSilence, ": 5 s\n\n": watchSilence, "data: heartbeat every 5 s\n\n": watchSilence,
	} {
		f := &rowsWatch{silence: watchSilence}
		f.read(strings.NewReader(text), time.NewTimer(time.Hour))
		if f.silence != want {
			t.Errorf("%q: silent after %v, want %v", text, f.silence, want)
		}
	}
	// A stream that is silent for longer is lost.
	silent := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte(": heartbeat every 0.001 s\n\n" + event("a", running)))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	got := command(t, "watch", "1", "--url="+answers(t, silent, events(event("b", completed)))).want(t, exitDone)
	mustContain(t, got.stderr, "nothing comes through")
}

func TestU20CutStreamIsTakenUpAtOnce(t *testing.T) {
	t.Parallel()
	read := func(text string) (*rowsWatch, attempt) {
		f := &rowsWatch{until: 100, rows: rowSelection{store.DefaultFeed, []store.Key{"1"}}, open: []store.Key{"1"}, states: map[store.Key]rowState{}, show: lineDisplay{streams{out: new(strings.Builder)}}, failures: 1, silence: watchSilence}
		return f, f.read(strings.NewReader(text), time.NewTimer(time.Hour))
	}
	first := strings.Replace(event("a", running), "retry: 1\n", "retry: 60000\n", 1)
	f, a := read(first)
	a.lasted = 3 * time.Second
	for range 100 {
		if d := f.delay(a); d >= watchAtOnce {
			t.Fatalf("taken up after %v", d)
		}
	}
	a.lasted = 0 // again and again
	most := time.Duration(0)
	for range 1000 {
		most = max(most, f.delay(a))
	}
	if most < watchAtOnce || most > time.Minute {
		t.Errorf("at most after %v", most)
	}
	for _, announced := range []string{first + "retry: 60000\n\n", first + "data: {\"error\":\"Stream timeout\"}\n\n"} {
		f, a := read(announced)
		if d := f.delay(a); d < time.Minute {
			t.Errorf("%q: back after %v", announced, d)
		}
	}
}

// A row's text must not control a terminal, not even through a pipe, and stays the same JSON.
func TestWatchEscapesWhatSteersATerminal(t *testing.T) {
	t.Parallel()
	var bad []rune
	for r := range rune(0x20) {
		bad = append(bad, r)
	}
	for r := rune(0x7f); r < 0xa0; r++ {
		bad = append(bad, r)
	}
	bad = append(bad, 0x61c, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2060, 0x2066, 0x2067, 0x2068, 0x2069, 0xfeff, 0xe0001)
	text := "größe 進捗 ✓ 😀 \\ \" <b>"
	for _, r := range bad {
		text += string(r) + "x"
	}
	message, err := json.Marshal(text)
	testkit.NoError(t, err)
	raw := string(message)
	for _, r := range bad[0x20:] { // which JSON allows as they are
		escape, _ := json.Marshal(string(r))
		raw = strings.ReplaceAll(raw, strings.Trim(string(escape), `"`), string(r))
	}
	data := `{"audit_id":1,"status":"completed","progress":100,"message":` + raw + "}"
	got := command(t, "watch", "1", "--url="+answers(t, events(event("a", data)))).want(t, exitDone)
	for _, r := range strings.TrimSuffix(got.out, "\n") {
		if !unicode.IsPrint(r) {
			t.Errorf("%U is printed", r)
		}
	}
	var told rowState
	if err := json.Unmarshal([]byte(got.out), &told); err != nil || told.Message != text {
		t.Errorf("the line says %q, %v, want %q", told.Message, err, text)
	}
	mustContain(t, got.out, "größe 進捗 ✓ 😀", `\u202e`, `\u009b`, `\udb40\udc01`)
	// JSON with line breaks becomes one line, and bytes that are no text become U+FFFD.
	spread := command(t, "watch", "1", "--url="+answers(t, events("data: {\"audit_id\":1,\ndata: \"status\":\"completed\",\"progress\":100,\"message\":\"\x9b2J\"}\n\n"))).want(t, exitDone)
	if want := "{\"audit_id\":1,\"status\":\"completed\",\"progress\":100,\"message\":\"\ufffd2J\"}\n"; spread.out != want {
		t.Errorf("printed %q, want %q", spread.out, want)
	}
}
