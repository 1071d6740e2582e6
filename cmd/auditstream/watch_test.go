package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"auditstream/internal/testkit"

	"github.com/tmaxmax/go-sse"
)

const (
	blank     = `{"audit_id":1,"status":"","progress":5}`
	running   = `{"audit_id":1,"status":"running","progress":25}`
	further   = `{"audit_id":1,"status":"running","progress":80}`
	completed = `{"audit_id":1,"status":"completed","progress":100}`
	failed    = `{"audit_id":1,"status":"failed","progress":80,"error":"boom"}`
)

// answers serves one answer after the other, and then repeats the last.
func answers(t *testing.T, all ...http.HandlerFunc) (url string) {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all[min(int(n.Add(1)), len(all))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func events(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, text)
	}
}

// status is a proxy's answer, or our refusal, which its text shows.
func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// final is our answer with the header.
func final(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Auditstream-Answer", "final")
		status(code, body)(w, r)
	}
}

func event(id, data string) string {
	return "retry: 1\nevent: message\nid: " + id + "\ndata: " + data + "\n\n"
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	type test struct {
		answers []http.HandlerFunc
		flags   []string
		code    int
		out     string
		stderr  string
	}
	testkit.Each(t, map[string]test{
		"completed":             {[]http.HandlerFunc{events(event("a", running) + ": heartbeat\n\n" + event("b", completed))}, nil, exitDone, running + "\n" + completed + "\n", ""},
		"failed":                {[]http.HandlerFunc{events(event("a", failed))}, nil, exitAuditFailed, failed + "\n", "audit 1: failed: boom"},
		"until":                 {[]http.HandlerFunc{events(event("a", running) + event("b", further))}, []string{"--until=80"}, exitDone, running + "\n" + further + "\n", ""},
		"until, failed":         {[]http.HandlerFunc{events(event("a", failed))}, []string{"--until=80"}, exitAuditFailed, failed + "\n", "boom"},
		"no status":             {[]http.HandlerFunc{events(event("a", blank) + event("b", completed))}, nil, exitDone, blank + "\n" + completed + "\n", ""},
		"401":                   {[]http.HandlerFunc{status(401, `{"error":"Invalid authentication token"}`)}, nil, exitRefused, "", "audit 1: Invalid authentication token"},
		"403":                   {[]http.HandlerFunc{status(403, `{"error":"Cross-user access denied"}`)}, nil, exitRefused, "", "Cross-user access denied"},
		"404":                   {[]http.HandlerFunc{final(404, "nothing")}, nil, exitRefused, "", "HTTP status 404"},
		"no control characters": {[]http.HandlerFunc{final(404, `{"error":"\u001b[2J"}`)}, nil, exitRefused, "", "audit 1:  [2J"},
		"expired":               {[]http.HandlerFunc{events(event("a", running) + "data: {\"error\":\"Token expired\"}\n\n")}, nil, exitRefused, running + "\n", "Token expired"},
		"revoked":               {[]http.HandlerFunc{events(event("a", running) + "data: {\"error\":\"Audit not found\"}\n\n")}, nil, exitRefused, running + "\n", "Audit not found"},
		"204":                   {[]http.HandlerFunc{events(event("a", running)), final(204, "")}, nil, exitDone, running + "\n", "the stream has ended; trying again"},
		"comes back": {[]http.HandlerFunc{events(event("a", running) + "data: {\"error\":\"Stream timeout\"}\n\n"), status(502, "bad gateway"),
			status(200, "<p>sign in"), events(event("b", completed))}, nil, exitDone, running + "\n" + completed + "\n", "Stream timeout; trying again"},
	}, func(t *testing.T, _ string, c test) {
		got := command(t, append([]string{"watch", "1", "--token=t0ken", "--url=" + answers(t, c.answers...)}, c.flags...)...).want(t, c.code)
		testkit.Equal(t, got.out, c.out, "standard output")
		mustContain(t, got.stderr, c.stderr)
		mustNotContain(t, got.stderr, "t0ken", "\x1b")
		if c.stderr == "" && got.stderr != "" {
			t.Errorf("standard error: %s", got.stderr)
		}
	})
}

// A reconnecting watch sends Last-Event-ID, and the token goes to no other address.
func TestWatchRequests(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("asked at the target of a redirect, Authorization %q", r.Header.Get("Authorization"))
	}))
	t.Cleanup(elsewhere.Close)
	asked := make(chan string, 3)
	record := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked <- fmt.Sprint(r.URL, " ", r.Header.Get("Authorization"), " ", r.Header.Get("Last-Event-ID"))
			next(w, r)
		}
	}
	url := answers(t, record(events(event("a", running))), record(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	}), record(events(event("b", completed))))
	command(t, "watch", "1", "--token= t0ken\n", "--url="+url+"/").want(t, exitDone)
	for _, want := range []string{"", "a", "a"} {
		testkit.Equal(t, <-asked, "/api/v1/sse/audits/1/progress Bearer t0ken "+want, "asked")
	}
}

// Several rows share a connection. A row that has ended is not asked for again: it may be deleted, and then all would be refused.
func TestWatchSeveral(t *testing.T) {
	t.Parallel()
	const two, three = `{"audit_id":2,"status":"failed","progress":80,"error":"bo\u001bom"}`, `{"audit_id":3,"status":"completed","progress":100}`
	var asked []string
	ask := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.String()) // one after the other
			next(w, r)
		}
	}
	url := answers(t, ask(events(event("a", running)+event("c", three))), ask(events(event("b", two))), ask(events(event("d", completed))))
	got := command(t, "watch", "3", "1", "2", "--url="+url).want(t, exitAuditFailed)
	testkit.Equal(t, got.out, running+"\n"+three+"\n"+two+"\n"+completed+"\n", "standard output")
	testkit.Equal(t, strings.Join(asked, " "), "/api/v1/sse/audits/progress?ids=3,1,2 /api/v1/sse/audits/progress?ids=1,2 /api/v1/sse/audits/1/progress", "asked for")

	mustContain(t, got.stderr, "audits 1, 2: the stream has ended; trying again", "auditstream: audit 2: failed: bo om")
}

func TestWatchSeveralEnds(t *testing.T) {
	t.Parallel()
	const two = `{"audit_id":2,"status":"running","progress":90}`
	type test struct {
		answer http.HandlerFunc
		code   int
		stderr string
	}
	testkit.Each(t, map[string]test{
		"refused":    {status(403, `{"error":"Cross-user access denied: audit 2"}`), exitRefused, "audits 1, 2: Cross-user access denied: audit 2"},
		"revoked":    {events(event("a", failed) + "data: {\"error\":\"Audit not found\"}\n\n"), exitRefused, "audit 2: Audit not found"},
		"until":      {events(event("a", running) + event("b", two) + event("c", further)), exitDone, ""},
		"not asked":  {events(event("a", `{"audit_id":7,"status":"failed","progress":1}`) + event("b", further) + event("c", two)), exitDone, ""},
		"as several": {events(event("a", failed) + event("b", two)), exitAuditFailed, "audit 1: failed: boom"},
	}, func(t *testing.T, _ string, c test) {
		got := command(t, "watch", "1", "2", "--until=80", "--url="+answers(t, c.answer)).want(t, c.code)
		mustContain(t, got.stderr, c.stderr)
		mustNotContain(t, got.out, `"audit_id":7`)
	})
}

func TestWatchUsage(t *testing.T) {
	t.Parallel()
	var many []string
	for n := range maxWatched + 1 {
		many = append(many, fmt.Sprint(n+1))
	}
	for _, args := range [][]string{
		many, {}, {"x"}, {"0"}, {"1", "1"}, {"9223372036854775808"}, {"1", "--until=101"}, {"1", "--until=-1"}, {"1", "--url=localhost:8080"},
		{"1", "--url=ftp://h"}, {"1", "--url=http://u:geheimnis@h"}, {"1", "--url=http://h?token=geheimnis"},
	} {
		got := command(t, append([]string{"watch"}, args...)...).want(t, exitUsage)
		mustNotContain(t, got.stderr, "geheimnis")
	}
}

func TestWatchBackoff(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := watchBackoff(1, time.Second, false); d < 0 || d >= 2*time.Second {
			t.Fatalf("first: %v", d)
		}
		if d := watchBackoff(1000, time.Second, false); d < 0 || d >= watchBackoffMax {
			t.Fatalf("bound: %v", d)
		}
		if d := watchBackoff(0, 5*time.Second, true); d < 5*time.Second {
			t.Fatalf("sooner than the server asked: %v", d)
		}
	}
	if d := watchBackoff(3, time.Minute, true); d != time.Minute {
		t.Errorf("the server's minute: %v", d)
	}
}

func readEvents(r io.Reader) (all []streamEvent) {
	for reader := newEventReader(r, ""); ; {
		e, err := reader.next()
		if err != nil {
			return all
		}
		if e.data != "" {
			all = append(all, e)
		}
	}
}

// From any bytes our reader reads what go-sse reads, however the bytes are cut into pieces.
func FuzzWatchEvents(f *testing.F) {
	f.Add([]byte(event("a", running) + ": heartbeat\n\n" + event("b", completed)))
	f.Add([]byte("\ufeffdata: a\r\ndata:b\r\rid: 1\x00\ndata\n\nid\ndata:  c\n\nretry: 5x\nretry: 7\n\ndata: lost"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var want []streamEvent
		for e, err := range sse.Read(bytes.NewReader(stream), &sse.ReadConfig{MaxEventSize: maxEventLine}) {
			if err == nil && e.Data != "" { // it also yields events without data, which the standard drops
				want = append(want, streamEvent{e.Data, e.LastEventID})
			}
		}
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(stream), "bytes": iotest.OneByteReader(bytes.NewReader(stream))} {
			if got := readEvents(r); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

func TestWatchRetry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"retry: 7\n\n": 7 * time.Millisecond, "retry: 7x\n\n": -1, "retry:\n\n": -1, "retry: +7\n\n": -1} {
		r := newEventReader(strings.NewReader(text), "")
		if _, err := r.next(); err != io.EOF || r.retry != want {
			t.Errorf("%q: %v, %v, want %v", text, r.retry, err, want)
		}
	}
}
