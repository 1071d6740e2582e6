package server

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
	"github.com/tmaxmax/go-sse"
)

func TestEventBytes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		write func(*eventStream) error
		want  string
	}{
		"first": {
			func(e *eventStream) error { return e.state(running(25), opening(30*time.Second, 5*time.Second)) },
			": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: 1d346586d18f8a81\ndata: {\"audit_id\":42,\"status\":\"running\",\"progress\":25}\n\n",
		},
		"state": {
			func(e *eventStream) error { return e.state(running(25), "") },
			"event: message\nid: 1d346586d18f8a81\ndata: {\"audit_id\":42,\"status\":\"running\",\"progress\":25}\n\n",
		},
		"nothing yet":          {func(e *eventStream) error { return e.open(opening(90*time.Second, time.Second)) }, ": heartbeat every 90 s\n\nretry: 1000\n\n"},
		"heartbeat":            {func(e *eventStream) error { return e.heartbeat() }, ": heartbeat\n\n"},
		"an end":               {func(e *eventStream) error { return e.fail("Token expired", 0) }, "event: message\ndata: {\"error\":\"Token expired\"}\n\n"},
		"an end with a retry":  {func(e *eventStream) error { return e.fail("Stream timeout", 1500*time.Millisecond) }, "retry: 1500\nevent: message\ndata: {\"error\":\"Stream timeout\"}\n\n"},
		"goodbye":              {func(e *eventStream) error { return e.retry(3 * time.Second) }, "retry: 3000\n\n"},
		"the shortest goodbye": {func(e *eventStream) error { return e.retry(time.Nanosecond) }, "retry: 1\n\n"},
	} {
		c := newClient()
		if err := tc.write(openEvents(c)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.String(); got != tc.want {
			t.Errorf("%s: got\n%q\nwant\n%q", name, got, tc.want)
		}
	}
}

// failing is a client whose calls fail from the n-th on.
type failing struct {
	*client
	after int
	calls []string
}

var errBroken = errors.New("broken pipe")

func (f *failing) call(name string) error {
	f.calls = append(f.calls, name)
	if len(f.calls) > f.after {
		return errBroken
	}
	return nil
}

func (f *failing) Write(p []byte) (int, error)        { return len(p), f.call("write") }
func (f *failing) FlushError() error                  { return f.call("flush") }
func (f *failing) SetWriteDeadline(d time.Time) error { return f.call("deadline") }

func TestEachStepOfAWriteIsChecked(t *testing.T) {
	t.Parallel()
	steps := []string{"deadline", "write", "flush", "deadline"}
	for n, step := range steps {
		f := &failing{client: newClient(), after: n}
		if err := openEvents(f).heartbeat(); !errors.Is(err, errBroken) || len(f.calls) != n+1 || f.calls[n] != step {
			t.Errorf("error %v after %v, want that of the %s", err, f.calls, step)
		}
	}
	f := &failing{client: newClient(), after: len(steps)}
	if err := openEvents(f).heartbeat(); err != nil || len(f.calls) != len(steps) {
		t.Errorf("error %v after %v", err, f.calls)
	}
}

func TestWriteThatFailsEndsTheStream(t *testing.T) {
	t.Parallel()
	for n := range 3 { // the first event, a state, a heartbeat
		synctest.Test(t, func(t *testing.T) {
			sub, states := one(running(1))
			s := newTestServer(t, sub, nil)
			f := &failing{client: newClient(), after: 4 * n}
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.routes().ServeHTTP(f, authorized(t, streamPath))
			}()
			synctest.Wait()
			if n > 0 {
				states.put(running(2))
			}
			<-done
			if got := len(f.calls); got != 4*n+1 {
				t.Errorf("%d calls, want none after the one that failed: %v", got, f.calls)
			}
			if !strings.Contains(scrape(t, s), `auditstream_streams_ended_total{reason="client gone"} 1`) {
				t.Error("not counted as a client that has gone")
			}
		})
	}
}

func TestWhatEndsFirstEndsTheStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.MaxDuration = time.Hour })
		for left, want := range map[time.Duration]bool{
			-time.Second: true, time.Hour - 1: true, time.Hour: false, 100 * 365 * 24 * time.Hour: false,
		} {
			if lasts, expires := s.lifetime(Viewer{Expires: time.Now().Add(left)}); expires != want || lasts != min(left, time.Hour) {
				t.Errorf("a token of %v: %v, by its expiry %v, want %v", left, lasts, expires, want)
			}
		}
	})
}

func TestTokenThatExpiresWhileTheDatabaseIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sub, _ := one(running(1))
		slow := hubFunc(func(ctx context.Context, keys []store.Key, who store.Viewer, wake func()) (Subscription, error) {
			time.Sleep(1900 * time.Millisecond)
			return sub(ctx, keys, who, wake)
		})
		token := sign(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Second).Unix()})
		start := time.Now()
		c := streamed(t, newTestServer(t, slow, nil), get(t, streamPath, "Authorization", "Bearer "+token), nil)
		if c.status != http.StatusUnauthorized || strings.Contains(c.String(), "progress") || time.Since(start) > 2*time.Second {
			t.Errorf("%d %q after %v, want 401 and nothing of the audit", c.status, c.String(), time.Since(start))
		}
	})
}

// lines are what may stand on a stream, line by line: whatever a row holds, it is inside one data field.
var lines = regexp.MustCompile(`^(: heartbeat every [1-9][0-9]* s\n\n)?(retry: [1-9][0-9]*\n)?(event: message\n(id: [0-9a-f]{16}\n)?data: \{[^\r\n\x00-\x1f]*\}\n)?\n$`)

// An independent parser must read from a stream what was written into it: the same events, with every field, and no others.
func FuzzEncodeEvent(f *testing.F) {
	for _, seed := range []string{"", "Analyzing pages...", "a\nb", "a\r\nb", "a\rb", "\ufeff", "\x00", "\xff\xfe", "data: x\n\nid: 1", "\u2028", "<b>&", "\n\n: x\nretry: 1\n\n", "\ud7ff\u0085", strings.Repeat("a", 70000)} {
		f.Add(seed, seed, seed, 78.5, int64(12), int64(5*time.Second))
		f.Add("failed", seed, seed, math.Inf(1), int64(-1), int64(time.Nanosecond))
		f.Add(seed, "", "failed", math.NaN(), int64(math.MaxInt64), int64(-1))
	}
	f.Fuzz(func(t *testing.T, status, message, failure string, score float64, pages, retry int64) {
		total := int(pages)
		state := store.NewState(store.Row{ID: store.IntKey(max(pages, 1)), Status: status, Progress: total, Message: &message, GeoScore: &score, TotalPages: &total,
			Error: &failure, UserID: &message, UserEmail: &failure})
		c := newClient()
		events := openEvents(c)
		var want []sse.Event
		for _, step := range []struct {
			write func() error
			event *sse.Event
		}{
			{func() error { return events.state(state, opening(30*time.Second, time.Duration(retry))) }, &sse.Event{LastEventID: state.Fingerprint, Type: "message", Data: string(state.JSON)}},
			{events.heartbeat, nil},
			{func() error { return events.state(state, "") }, &sse.Event{LastEventID: state.Fingerprint, Type: "message", Data: string(state.JSON)}},
			{func() error { return events.fail(failure, time.Duration(retry)) }, &sse.Event{LastEventID: state.Fingerprint, Type: "message", Data: string(errorJSON(failure))}},
			{func() error { return events.retry(time.Duration(retry)) }, nil},
		} {
			before := len(c.String())
			testkit.NoError(t, step.write())
			block := c.String()[before:]
			if block != heartbeat && !lines.MatchString(block) {
				t.Errorf("a block of other lines: %q", block)
			}
			if len(block) > 6*(len(status)+len(message)+len(failure))+1000 {
				t.Errorf("%d bytes", len(block))
			}
			if step.event != nil {
				want = append(want, *step.event)
			}
		}
		var got []sse.Event
		for e, err := range sse.Read(strings.NewReader(c.String()), &sse.ReadConfig{MaxEventSize: 1 << 24}) {
			testkit.NoError(t, err)
			got = append(got, e)
		}
		if !slices.Equal(got, want) {
			t.Errorf("read %+v, wrote %+v", got, want)
		}
		var back map[string]any
		testkit.NoError(t, json.Unmarshal(state.JSON, &back))
		for name, text := range map[string]string{"status": status, "message": message, "error": failure} {
			if name == "error" && status != "failed" {
				if _, shown := back[name]; shown {
					t.Errorf("an error is shown while the status is %q", status)
				}
			} else if utf8.ValidString(text) && back[name] != text {
				t.Errorf("%s: %q became %q", name, text, back[name])
			}
		}
		if len(back) > 7 {
			t.Errorf("more than the contract's fields: %s", state.JSON)
		}
	})
}

func BenchmarkStreamWrite(b *testing.B) {
	state := running(50)
	c := newClient()
	events := openEvents(c)
	b.ReportAllocs()
	for b.Loop() {
		if err := events.state(state, ""); err != nil {
			b.Fatal(err)
		}
		c.body.Reset()
	}
}
