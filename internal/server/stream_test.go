package server

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// begun is the beginning of streams with the default settings.
const begun = ": heartbeat every 30 s\n\nretry: 5000\n"

func event(s *store.State) string {
	return "event: message\nid: " + s.Fingerprint + "\ndata: " + string(s.JSON) + "\n\n"
}

// streamed runs a stream in fake time. play is called once the first event is written; the stream must end by itself after
// it.
func streamed(t *testing.T, s *Server, r *http.Request, play func(*client)) *client {
	t.Helper()
	c := newClient()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.routes().ServeHTTP(c, r)
	}()
	synctest.Wait()
	if play != nil {
		play(c)
	}
	<-done
	if c.unset > 0 {
		t.Errorf("%d writes without a deadline", c.unset)
	}
	if !c.deadline.IsZero() && !c.stuck {
		t.Error("the write deadline was not cleared: it would reset an idle HTTP/2 stream")
	}
	if n := s.limit.count(); n != 0 {
		t.Errorf("%d streams still counted", n)
	}
	return c
}

func TestStreamBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, last := running(25), ended("completed")
		sub, states := one(first)
		c := streamed(t, newTestServer(t, sub, nil), authorized(t, streamPath), func(*client) { states.put(last) })

		want := begun + event(first) + event(last)
		if got := c.String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if strings.Contains(c.String(), "boom") {
			t.Error("an error text of an audit that has not failed was sent")
		}
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no",
		} {
			if got := c.header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	})
}

func TestStreamEnds(t *testing.T) {
	t.Parallel()
	stolen := auditOf("42", "bob", "running", 0)
	for name, tc := range map[string]struct {
		exp    time.Duration
		then   *store.State
		after  time.Duration
		beats  int
		want   string
		random bool
	}{
		"timeout":         {exp: 24 * time.Hour, after: time.Hour, beats: 8, want: "Stream timeout", random: true},
		"token's expiry":  {exp: 10 * time.Minute, after: 10 * time.Minute, beats: 1, want: "Token expired"},
		"another owner":   {exp: time.Hour, then: stolen, want: "Cross-user access denied"},
		"deletion":        {exp: time.Hour, then: &store.State{ID: "42"}, want: "Audit not found"},
		"unreadable row":  {exp: time.Hour, then: &store.State{ID: "42", Err: errTest}, want: "Internal server error", random: true},
		"already expired": {exp: 0, want: "Invalid authentication token"},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			first := running(1)
			sub, states := one(first)
			token := sign(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(tc.exp).Unix()})
			start := time.Now()
			s := newTestServer(t, sub, func(c *Config) { c.Heartbeat = 7 * time.Minute }) // never due with the end
			c := streamed(t, s, get(t, streamPath, "Authorization", "Bearer "+token), func(*client) {
				if tc.then != nil {
					states.put(tc.then)
				}
			})
			if got := time.Since(start); got != tc.after {
				t.Errorf("ended after %v, want %v", got, tc.after)
			}
			if name == "already expired" {
				if c.status != http.StatusUnauthorized {
					t.Errorf("status %d, want 401", c.status)
				}
				return
			}
			retry := ""
			if tc.random {
				retry = `retry: [0-9]+\n`
			}
			want := regexp.QuoteMeta(opening(7*time.Minute, 5*time.Second)+event(first)+strings.Repeat(heartbeat, tc.beats)) + retry +
				regexp.QuoteMeta("event: message\ndata: {\"error\":\""+tc.want+"\"}\n\n")
			if got := c.String(); !regexp.MustCompile("^" + want + "$").MatchString(got) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		}))
	}
}

func TestHeartbeatComesAfterSilenceOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sub, states := one(running(0))
		c := streamed(t, newTestServer(t, sub, nil), authorized(t, streamPath), func(*client) {
			for i := range 10 { // 200 s with an event every 20 s
				time.Sleep(20 * time.Second)
				states.put(running(i + 1))
			}
			time.Sleep(31 * time.Second)
			states.put(ended("completed"))
		})
		if got := strings.Count(c.String(), heartbeat); got != 1 {
			t.Errorf("%d heartbeats, want 1", got)
		}
	})
}

func TestSeenEndIsAnswered204(t *testing.T) {
	t.Parallel()
	last, foreign := ended("failed"), auditOf("42", "bob", "completed", 100)
	for name, tc := range map[string]struct {
		path, header string
		state        *store.State
		want         int
	}{
		"header":            {streamPath, last.Fingerprint, last, 204},
		"last_event_id":     {streamPath + "?last_event_id=" + last.Fingerprint, "", last, 204},
		"lastEventId":       {streamPath + "?lastEventId=" + last.Fingerprint, "", last, 204},
		"another id":        {streamPath, "0123456789abcdef", last, 200},
		"not the end, seen": {streamPath, running(1).Fingerprint, running(1), 200},
		"somebody else's":   {streamPath, foreign.Fingerprint, foreign, 403},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			sub, states := one(tc.state)
			c := streamed(t, newTestServer(t, sub, nil), authorized(t, tc.path, "Last-Event-ID", tc.header), func(c *client) {
				if tc.state != last {
					states.put(last)
				}
			})
			if c.status != tc.want {
				t.Errorf("status %d, want %d", c.status, tc.want)
			}
			if tc.want == 204 && c.String() != "" {
				t.Errorf("a body: %s", c.String())
			}
		}))
	}
}

// A stream is told when to come back, a poll to ask again later.
func TestWhatCannotBeServedForNowComesBackLater(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first *store.State // nil: the database does not answer
		cfg   func(*Config)
		fill  int                                  // streams of alice's
		drain func(cancel context.CancelCauseFunc) // a shutdown
		want  string
		poll  int
	}{
		"database":       {want: "Internal server error", poll: 503},
		"unreadable row": {first: &store.State{ID: "42", Err: errTest}, want: "Internal server error", poll: 500},
		"shutdown":       {first: running(1), drain: func(cancel context.CancelCauseFunc) { cancel(errDraining) }, want: "Server is shutting down", poll: 503},
		"shutdown, while the database does not answer": {drain: func(cancel context.CancelCauseFunc) {
			time.AfterFunc(time.Second, func() { cancel(errDraining) })
		}, want: "Server is shutting down", poll: 503},
		"total":    {first: running(1), cfg: func(c *Config) { c.MaxStreams = 2 }, fill: 2, want: "Too many streams", poll: 200},
		"per user": {first: running(1), cfg: func(c *Config) { c.MaxStreamsPerUser = 1 }, fill: 1, want: "Too many streams", poll: 200},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			ask := func(path string) *client {
				hub, _ := one(tc.first)
				if tc.first == nil {
					hub = unreachable
				}
				s := newTestServer(t, hub, tc.cfg)
				for range tc.fill {
					s.limit.acquire(owner("alice"))
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				if tc.drain != nil {
					tc.drain(cancel)
				}
				c := serve(s, authorized(t, path).WithContext(ctx))
				cancel(nil)
				if got := s.limit.count(); got != tc.fill {
					t.Errorf("%d streams counted, want %d", got, tc.fill)
				}
				return c
			}
			c := ask(streamPath)
			match := regexp.MustCompile(`^retry: (\d+)\nevent: message\ndata: {"error":"` + tc.want + `"}\n\n$`).FindStringSubmatch(c.String())
			if c.status != http.StatusOK || match == nil {
				t.Fatalf("%d %q", c.status, c.String())
			}
			if retry, _ := strconv.Atoi(match[1]); retry < 2500 || retry >= 7500 {
				t.Errorf("retry %d, want 2500 to 7499", retry)
			}
			c = ask(statusPathOf42)
			if c.status != tc.poll || tc.poll != 200 && c.String() != `{"error":"`+tc.want+`"}` || (c.header.Get("Retry-After") != "") != (tc.poll == 503) {
				t.Errorf("a poll: %d %s, Retry-After %q", c.status, c, c.header.Get("Retry-After"))
			}
		}))
	}
}

func TestShutdownSpreadsClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := make(map[string]bool)
		for range 20 {
			first := running(1)
			sub, _ := one(first)
			ctx, cancel := context.WithCancelCause(t.Context())
			c := streamed(t, newTestServer(t, sub, nil), authorized(t, streamPath).WithContext(ctx), func(*client) { cancel(errDraining) })
			goodbye, ok := strings.CutPrefix(c.String(), begun+event(first))
			if !ok || !regexp.MustCompile(`^retry: \d+\n\n$`).MatchString(goodbye) {
				t.Fatalf("got %q", c.String())
			}
			seen[goodbye] = true
		}
		if len(seen) < 10 {
			t.Errorf("20 clients were told %d different delays", len(seen))
		}
	})
}

func TestStuckClientIsCutOff(t *testing.T) {
	t.Parallel()
	for name, since := range map[string]time.Duration{"at its first event": 0, "later": time.Second} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			sub, states := one(running(1))
			s := newTestServer(t, sub, nil)
			c := newClient()
			if c.stuck = since == 0; !c.stuck {
				time.AfterFunc(since, func() {
					c.mu.Lock()
					c.stuck = true
					c.mu.Unlock()
					states.put(running(2))
				})
			}
			start := time.Now()
			s.routes().ServeHTTP(c, authorized(t, streamPath))
			if got := time.Since(start) - since; got != writeTimeout || s.limit.count() != 0 {
				t.Errorf("cut off after %v with %d streams left, want %v and none", got, s.limit.count(), writeTimeout)
			}
		}))
	}
}

// confirmed records what the client had received when the subscription was confirmed.
type confirmed struct {
	*slot
	client *client
	had    []string
}

func (s *confirmed) Confirm() { s.slot.Confirm(); s.had = append(s.had, s.client.String()) }

// A subscription is confirmed only after the row is known to be the viewer's, and the first event does not wait for that.
func TestS4WritersAreToldAfterTheFirstEvent(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		streamPath: begun + event(running(1)), severalPath + "?ids=42": begun + event(running(1)), severalPath: begun + event(running(1)),
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient()
			sub := &confirmed{slot: newSlot(running(1)), client: c}
			s := newTestServer(t, hubFunc(func(ctx context.Context, _ []store.Key, _ store.Viewer, wake func()) (Subscription, error) {
				_, err := sub.slot.subscribe(ctx, wake)
				return sub, err
			}), nil)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			s.routes().ServeHTTP(c, authorized(t, path).WithContext(ctx))
			if !slices.Equal(sub.had, []string{want}) {
				t.Errorf("%s: told when the client had %q, want %q, once", path, sub.had, want)
			}
			if sub.times("cancel") != 1 || c.String() != want {
				t.Errorf("%s: calls %v, the client that has gone had %q", path, sub.calls, c)
			}
		})
	}
}

// Refused rows, rows that have ended, and polls confirm no subscription.
func TestS5WritersAreToldOnlyOfStreamsThatGoOn(t *testing.T) {
	t.Parallel()
	foreign := auditOf("42", "bob", "running", 0)
	list := severalPath + "?ids=42"
	for name, tc := range map[string]struct {
		path  string
		state *store.State
	}{
		"foreign": {streamPath, foreign}, "gone": {streamPath, &store.State{ID: "42"}}, "unreadable": {streamPath, &store.State{ID: "42", Err: errTest}},
		"terminal": {streamPath, ended("completed")}, "foreign, of a list": {list, foreign}, "terminal, of a list": {list, ended("failed")},
		"polled": {statusPathOf42, running(1)}, "foreign, polled": {statusPathOf42, foreign},
	} {
		synctest.Test(t, func(t *testing.T) {
			hub, slot := one(tc.state)
			c := serve(newTestServer(t, hub, nil), authorized(t, tc.path))
			if want := []string{"subscribe", "take", "cancel"}; !slices.Equal(slot.calls, want) {
				t.Errorf("%s: calls %v, want %v", name, slot.calls, want)
			}
			if (tc.state == foreign || !tc.state.Found) && strings.Contains(c.String(), "progress") {
				t.Errorf("%s: shown %q", name, c)
			}
		})
	}
}

func BenchmarkEncodeEvent(b *testing.B) {
	s := running(50)
	for b.Loop() {
		encodeEvent(s)
	}
}

func ExampleServer_retryDelay() {
	s := &Handler{cfg: Config{Retry: 5 * time.Second}}
	d := s.retryDelay()
	fmt.Println(d >= 2500*time.Millisecond, d < 7500*time.Millisecond)
	// Output: true true
}
