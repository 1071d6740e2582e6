package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
)

// sink collects the calls of a listener, as texts: "resync" or a key.
type sink chan string

func (s sink) Notify(row string) bool {
	feed, text := SplitRow(row)
	key, ok := store.ParseKey(text)
	if ok = ok && feed == store.DefaultFeed; ok {
		s <- string(key)
	}
	return ok
}
func (s sink) Resync() { s <- "resync" }

// drain returns the calls since the last drain.
func (s sink) drain() (told []string) {
	for len(s) > 0 {
		told = append(told, <-s)
	}
	return told
}

// fakeSource is a Source whose payloads come back at once, unless send or connect replaces that.
type fakeSource struct {
	connect     func(ctx context.Context) error
	send        func(ctx context.Context, payload string) error // what it does not pass to deliver is lost
	loses       atomic.Bool                                     // what is sent, without send
	endsIn      time.Duration                                   // how long a connection takes to end
	connections atomic.Pointer[fakeConnection]                  // the newest
	opens, open atomic.Int64                                    // connections until now, and at this moment
	sent        atomic.Int64
}

// fakeConnection is one connection to a fakeSource.
type fakeConnection struct {
	payloads chan string
	broken   chan error
	ended    atomic.Bool
}

func (s *fakeSource) Texts() Texts {
	return Texts{Up: "it works", Lost: "it is lost", Mute: "it is mute"}
}

func (s *fakeSource) Listen(ctx context.Context, opened func(), heard func(payload string)) error {
	s.opens.Add(1)
	s.open.Add(1)
	defer s.open.Add(-1)
	defer func() { time.Sleep(s.endsIn) }()
	if s.connect != nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	d := &fakeConnection{payloads: make(chan string, 100), broken: make(chan error, 1)}
	defer d.ended.Store(true)
	s.connections.Store(d)
	opened()
	for {
		select {
		case payload := <-d.payloads:
			heard(payload)
		case err := <-d.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *fakeSource) Send(ctx context.Context, payload string) error {
	s.sent.Add(1)
	if s.send != nil {
		return s.send(ctx, payload)
	}
	if !s.loses.Load() {
		s.deliver(payload)
	}
	return nil
}

func (s *fakeSource) deliver(payload string) { s.connections.Load().payloads <- payload }

// listenerFixture is a listener on a fakeSource.
type listenerFixture struct {
	*fakeSource
	sink     sink
	log      testkit.Log
	reg      *prometheus.Registry
	listener *Listener
}

func startListener(t *testing.T, s *fakeSource, change ...func(*ListenerConfig)) *listenerFixture {
	t.Helper()
	h := &listenerFixture{fakeSource: s, sink: make(sink, 10_000), reg: prometheus.NewRegistry()}
	cfg := ListenerConfig{Source: s, Sink: h.sink, Registerer: h.reg, Logger: h.log.Logger()}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	h.listener, err = NewListener(cfg)
	testkit.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.listener.Run(ctx); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if h.listener.Up() {
			t.Error("up after the end")
		}
	})
	return h
}

func (h *listenerFixture) wantUp(t *testing.T, want bool) {
	t.Helper()
	synctest.Wait()
	if got := h.listener.Up(); got != want {
		t.Errorf("up %v, want %v; log:\n%s", got, want, &h.log)
	}
}

func (h *listenerFixture) wantCount(t *testing.T, want float64, name string, label ...string) {
	t.Helper()
	synctest.Wait()
	if got := testkit.Metric(t, h.reg, name, label...); got != want {
		t.Errorf("%s %v: %v, want %v", name, label, got, want)
	}
}

func TestCanaryThatComesBackProvesTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{})
		h.wantUp(t, true)
		time.Sleep(59 * time.Second)
		h.wantCount(t, 15, "auditstream_canary_seconds") // one each 4 s
		h.wantCount(t, 1, "auditstream_listener_up")
		if h.log.Count("it works") != 1 {
			t.Errorf("log:\n%s", &h.log)
		}
	})
}

// 15 canaries a minute kept a database awake that sleeps without queries.
func TestU22NoCanaryWhileNobodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var idle atomic.Bool
		idle.Store(true)
		h := startListener(t, &fakeSource{}, func(cfg *ListenerConfig) { cfg.Idle = idle.Load })
		h.wantUp(t, true)
		time.Sleep(time.Hour)
		if n := h.sent.Load(); n != 1 {
			t.Errorf("%d canaries in an idle hour, want the first", n)
		}
		h.wantCount(t, 1, "auditstream_listener_up")

		h.loses.Store(true) // and nobody notices
		time.Sleep(time.Hour)
		h.wantUp(t, true)
		idle.Store(false) // the first viewer
		time.Sleep(idleCheck)
		synctest.Wait()
		if n := h.sent.Load(); n != 2 {
			t.Errorf("%d canaries once somebody watches, want one more at once", n)
		}
		time.Sleep(2 * time.Second)
		h.wantUp(t, false)
		h.loses.Store(false)
		time.Sleep(6 * time.Second)
		h.wantUp(t, true)
		before := h.sent.Load()
		time.Sleep(time.Minute)
		if n := h.sent.Load() - before; n < 14 {
			t.Errorf("%d canaries in a minute that somebody watches, want 15", n)
		}
	})
}

// The first canary is sent even when nobody watches, because /readyz says whether notifications arrive.
func TestU22ConnectionIsProvenAlsoWhileNobodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{send: func(context.Context, string) error { return nil }}, func(cfg *ListenerConfig) { cfg.Idle = func() bool { return true } })
		time.Sleep(time.Minute)
		if n := testkit.Metric(t, h.reg, "auditstream_listener_failures_total", failSilent); n == 0 {
			t.Error("no connection was given up")
		}
	})
}

func TestPayloadsAreHints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{})
		synctest.Wait()
		for _, payload := range []string{"!another-instance", "nonsense", "0", "-3", "9223372036854775808", "42", "*", strings.Repeat("9", 8000), "", "9223372036854775807", "#1", "**"} {
			h.deliver(payload)
		}
		synctest.Wait()
		if got, want := fmt.Sprint(h.sink.drain()), "[resync 42 resync 9223372036854775807 resync]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		for kind, want := range map[string]float64{"row": 2, "resync": 2, "ignored": 7, "canary": 2} {
			h.wantCount(t, want, "auditstream_notifications_total", kind)
		}
	})
}

// textSink accepts every text as a key.
type textSink struct{ sink }

func (s textSink) Notify(row string) bool {
	s.sink <- row
	return true
}

// In a feed with text keys, #5 may be a row. Its change must not wait until all that is watched is read.
func TestKeyThatLooksLikeABucketIsARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		texts := textSink{make(sink, 10)}
		h := startListener(t, &fakeSource{}, func(cfg *ListenerConfig) { cfg.Sink = texts })
		synctest.Wait()
		texts.drain()
		h.deliver("jobs:#5")
		h.deliver("#5")
		synctest.Wait()
		if got, want := fmt.Sprint(texts.drain()), "[jobs:#5 resync resync]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

// The sending of a canary timed out, so it counted as lost. It came back after all, and then vouched for the next one, on a
// connection that had died in between; and so on with each that followed.
func TestEarlierCanaryDoesNotVouchForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *fakeSource
		var earlier string
		s = &fakeSource{send: func(ctx context.Context, payload string) error {
			if earlier != "" {
				s.deliver(earlier)
				return nil
			}
			earlier = payload
			<-ctx.Done()
			return ctx.Err()
		}}
		h := startListener(t, s)
		for range 20 {
			time.Sleep(time.Second)
			h.wantUp(t, false)
		}
		if n := testkit.Metric(t, h.reg, "auditstream_listener_failures_total", failSilent); n == 0 {
			t.Error("no connection was given up")
		}
	})
}

// A canary that cannot be sent proves nothing about the connection, which is kept and still heard. But without a recent proof the listener
// is not up: when connection and pool were both cut off silently, it said for ever that it was.
func TestCanaryThatCannotBeSent(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(ctx context.Context) error{
		"refused": func(context.Context) error { return errDatabase },
		"hangs":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			var works atomic.Bool
			works.Store(true)
			var s *fakeSource
			s = &fakeSource{send: func(ctx context.Context, payload string) error {
				if !works.Load() {
					return fail(ctx)
				}
				s.deliver(payload)
				return nil
			}}
			h := startListener(t, s)
			for _, step := range []struct {
				works, up bool
				after     time.Duration
			}{{true, true, time.Second}, {false, true, 10 * time.Second}, {false, false, 12 * time.Second}, {false, false, time.Hour}, {true, true, 6 * time.Second}} {
				works.Store(step.works)
				time.Sleep(step.after)
				h.wantUp(t, step.up)
				h.deliver("42")
				synctest.Wait()
			}
			h.wantCount(t, 5, "auditstream_notifications_total", "row")
			if h.opens.Load() != 1 || h.log.Count("no canary can be sent") != 1 || h.log.Count("it works") != 2 {
				t.Errorf("%d connections, want the one that works; log:\n%s", h.opens.Load(), &h.log)
			}
		}))
	}
}

func TestSilenceEndsTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{})
		h.wantUp(t, true)
		h.loses.Store(true)
		time.Sleep(6*time.Second - time.Millisecond)
		h.wantUp(t, true)
		time.Sleep(2 * time.Millisecond)
		h.wantUp(t, false)
		h.loses.Store(false)
		time.Sleep(100 * time.Millisecond)
		h.wantUp(t, true)
		h.wantCount(t, 1, "auditstream_listener_failures_total", failSilent)
		h.wantCount(t, 2, "auditstream_listener_connects_total")
		if got := h.sink.drain(); len(got) != 2 {
			t.Errorf("told %v, want a resync of each connection", got)
		}
	})
}

// A flood of notifications, which any database role can send, delayed the canary. The connection, which heard all of them, was closed as
// silent, and after the second time only the safety net was left for a minute.
func TestFloodIsNotSilence(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lasts    time.Duration
		failures float64
	}{
		"that ends":                   {7 * time.Second, 0},
		"that never lets a canary by": {time.Hour, 1},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			var s *fakeSource
			s = &fakeSource{send: func(_ context.Context, payload string) error {
				c := s.connections.Load()
				time.AfterFunc(tt.lasts, func() { c.payloads <- payload })
				return nil
			}}
			h := startListener(t, s)
			for range 20 {
				time.Sleep(time.Second / 2)
				h.deliver("forged")
			}
			time.Sleep(100 * time.Millisecond)
			h.wantCount(t, tt.failures, "auditstream_listener_failures_total", failSilent)
			h.wantUp(t, tt.failures == 0)
		}))
	}
}

// A transaction pooler accepts LISTEN and delivers nothing. Canaries of other instances and forged ones prove nothing.
func TestSourceThatDeliversNothingIsMute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *fakeSource
		s = &fakeSource{send: func(context.Context, string) error { s.deliver("!forged"); return nil }}
		h := startListener(t, s)
		time.Sleep(30 * time.Second)
		h.wantUp(t, false)
		if n := h.opens.Load(); n != muteSessions {
			t.Errorf("%d attempts in 30 s, want %d", n, muteSessions)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := h.opens.Load(); n < 50 || n > 70 {
			t.Errorf("%d attempts in an hour, want one a minute", n)
		}
		if h.log.Count("it is mute") != 1 || h.log.Count("it is lost") != 1 {
			t.Errorf("log:\n%s", &h.log)
		}
	})
}

// Found by the chaos test on a busy machine: after a pause of PostgreSQL, two late canaries in a row were mistaken for a transaction pooler,
// and nothing listened for a minute.
func TestPauseIsNotMute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{})
		h.wantUp(t, true)
		h.loses.Store(true)
		time.Sleep(25 * time.Second) // more sessions than muteSessions
		h.loses.Store(false)
		time.Sleep(7 * time.Second)
		h.wantUp(t, true)
		if h.log.Count("it is mute") > 0 {
			t.Errorf("a pause is said to be unusable:\n%s", &h.log)
		}
		h.loses.Store(true)
		time.Sleep(2 * time.Minute)
		if h.log.Count("it is mute") != 1 {
			t.Errorf("log:\n%s", &h.log)
		}
	})
}

func TestSourceThatCannotIsMuteAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{connect: func(context.Context) error { return fmt.Errorf("listen: %w", ErrCannot) }})
		time.Sleep(10*time.Minute - time.Second)
		synctest.Wait()
		if n := h.opens.Load(); n < 10 || n > 12 {
			t.Errorf("%d attempts in 10 minutes, want one a minute", n)
		}
		if h.log.Count("level=ERROR") != 1 || h.log.Count("level=WARN") != 0 {
			t.Errorf("log:\n%s", &h.log)
		}
	})
}

func TestOutageIsLoggedOnceEachWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		h := startListener(t, &fakeSource{connect: func(context.Context) error {
			if down.Load() {
				return errDatabase
			}
			return nil
		}})
		for outage := 1; outage <= 3; outage++ {
			h.wantUp(t, true)
			down.Store(true)
			h.connections.Load().broken <- errors.New("reset by peer")
			time.Sleep(time.Minute)
			h.wantUp(t, false)
			down.Store(false)
			time.Sleep(backoffMax)
			h.wantUp(t, true)
			if h.log.Count("it is lost") != outage || h.log.Count("it works") != outage+1 {
				t.Errorf("outage %d, log:\n%s", outage, &h.log)
			}
		}
		h.wantCount(t, 3, "auditstream_listener_failures_total", failLost)
		if n := testkit.Metric(t, h.reg, "auditstream_listener_failures_total", failConnect); n < 3*10 || n > 3*30 {
			t.Errorf("%v attempts in 3 minutes", n)
		}
	})
}

// A connection that breaks while a canary is sent or awaited ends at once. The next one begins only after it has ended.
func TestConnectionBreaksWhileProving(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*fakeSource{
		"sending":  {send: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }},
		"awaiting": {send: func(context.Context, string) error { return nil }},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			h := startListener(t, s)
			synctest.Wait()
			first := h.connections.Load()
			first.broken <- errors.New("reset by peer")
			synctest.Wait()
			h.wantCount(t, 1, "auditstream_listener_failures_total", failLost)
			time.Sleep(backoffMin)
			synctest.Wait()
			if h.opens.Load() != 2 || !first.ended.Load() {
				t.Errorf("%d connections, want another", h.opens.Load())
			}
		}))
	}
}

func TestRunEndsWhateverItWaitsFor(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, s := range map[string]*fakeSource{
		"open":   {connect: hangs},
		"send":   {send: func(ctx context.Context, _ string) error { return hangs(ctx) }},
		"canary": {send: func(context.Context, string) error { return nil }},
		"retry":  {connect: func(context.Context) error { return ErrCannot }},
		"rest":   {},
	} {
		synctest.Test(t, func(t *testing.T) {
			l, err := NewListener(ListenerConfig{Source: s, Sink: make(sink, 100)})
			testkit.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- l.Run(ctx) }()
			synctest.Wait()
			start := time.Now()
			cancel()
			if err := <-done; err != nil || time.Since(start) > 0 {
				t.Errorf("%s: Run returned %v after %v, want nil at once", name, err, time.Since(start))
			}
		})
	}
}

// With a doubt, the listener is not up although canaries arrive. A doubt that lasts is logged once.
func TestDoubtIsNotUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var doubt atomic.Value
		doubt.Store("")
		h := startListener(t, &fakeSource{}, func(cfg *ListenerConfig) { cfg.Doubt = func() string { return doubt.Load().(string) } })
		h.wantUp(t, true)
		for n := 1; n <= 2; n++ {
			doubt.Store("no relay is heard")
			time.Sleep(5 * time.Second)
			h.wantUp(t, false)
			if h.log.Count("no relay is heard") != n-1 {
				t.Errorf("logged at once:\n%s", &h.log)
			}
			time.Sleep(time.Minute)
			doubt.Store("")
			h.deliver("!of-a-relay") // somebody else is heard: no need to wait for the next canary
			time.Sleep(throttleInterval)
			h.wantUp(t, true)
			if h.log.Count("no relay is heard") != n || h.log.Count("it works") != n+1 {
				t.Errorf("doubt %d, log:\n%s", n, &h.log)
			}
		}
	})
}

func TestListenerConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*ListenerConfig){
		"Source":    func(c *ListenerConfig) { c.Source = nil },
		"Sink":      func(c *ListenerConfig) { c.Sink = nil },
		"durations": func(c *ListenerConfig) { c.CanaryTimeout = -1 },
	} {
		cfg := ListenerConfig{Source: &fakeSource{}, Sink: make(sink)}
		spoil(&cfg)
		if _, err := NewListener(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one that names it", name, err)
		}
	}
}

func TestBackoffGrowsAtRandomTo5Seconds(t *testing.T) {
	t.Parallel()
	var b Backoff
	for _, top := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000} {
		top *= time.Millisecond
		if got := b.Next(); got < top/2 || got > top {
			t.Errorf("delay %v, want %v to %v", got, top/2, top)
		}
	}
}

// Any database role may send any text on our channel: it is a key, a call to read everything, a canary, or ignored. Each causes one of
// these at most, answers no other canary, and leaves nothing behind in the hub for a key that nobody watches.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{"1", "42", "9223372036854775807", "9223372036854775808", "", "0", "-1", "01", "*", "#7", "!canary", "!mine", "1\n", "٣", "**", "!", "\x00", strings.Repeat("9", 7999), "1,2,3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		hub := newHub(t, HubConfig{Loader: newTable()})
		e := hub.entry("42")
		told := make(sink, 10)
		l, err := NewListener(ListenerConfig{Source: &fakeSource{}, Sink: told})
		testkit.NoError(t, err)
		s := &session{l: l, listening: make(chan struct{}), proveBell: NewBell()}
		mine := &canary{payload: CanaryPrefix + "mine", arrived: NewBell()}
		s.inFlight.Store(mine)
		for range 3 {
			s.hear(payload)
		}
		id, err := strconv.ParseInt(payload, 10, 64)
		want := ""
		switch {
		case err == nil && id > 0 && strconv.FormatInt(id, 10) == payload:
			want = payload
		case payload == "*" || strings.HasPrefix(payload, "#"):
			want = "resync"
		}
		got := told.drain()
		for _, text := range got {
			if text != want {
				t.Errorf("%q: told %q, want %q", payload, text, want)
			}
		}
		if len(got) != 3 && want != "" {
			t.Errorf("%q: told %d times of 3", payload, len(got))
		}
		if heard := len(mine.arrived) == 1; heard != (payload == mine.payload) {
			t.Errorf("%q counts as our canary: %v", payload, heard)
		}
		if key, ok := store.ParseKey(payload); ok {
			hub.Notify(key)
		}
		if len(hub.entries) != 1 || (e.dirty != clean) != (payload == "42") {
			t.Errorf("%q: %d entries, dirty %v", payload, len(hub.entries), e.dirty)
		}
	})
}

// The listener waits for a connection that ends slowly: there are never two.
func TestOneConnectionAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startListener(t, &fakeSource{endsIn: 5 * time.Second})
		h.loses.Store(true)
		for range 6000 {
			time.Sleep(100 * time.Millisecond)
			if n := h.open.Load(); n > 1 {
				t.Fatalf("%d connections", n)
			}
		}
		if n := h.opens.Load(); n < 5 {
			t.Errorf("%d connections in ten minutes", n)
		}
	})
}
