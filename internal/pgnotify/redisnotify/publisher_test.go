package redisnotify

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
)

// never is for a publisher whose process does not listen.
func never() bool { return false }

// runPublisher runs a publisher until the test is over.
func runPublisher(t *testing.T, url string, listening func() bool, change ...func(*PublisherConfig)) *Publisher {
	t.Helper()
	cfg := PublisherConfig{Redis: options(t, url)}
	for _, c := range change {
		c(&cfg)
	}
	p, err := NewPublisher(cfg)
	testkit.NoError(t, err)
	start(t, func(ctx context.Context) error { return p.Run(ctx, listening) })
	return p
}

// Every listener hears what a publisher is given. A second publisher does no harm.
func TestPublishersReachAllListeners(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, heardA := listen(t, s.URL())
	b, heardB := listen(t, s.URL())
	testkit.Eventually(t, "up", func() bool { return a.Up() && b.Up() })
	for _, p := range []*Publisher{runPublisher(t, s.URL(), never), runPublisher(t, s.URL(), never)} {
		p.Notify("42")
		p.Resync()
		p.Notify("43") // the resync includes it
	}
	heardA.resynced(t, 1)
	heardB.resynced(t, 1)
	runPublisher(t, s.URL(), never).Notify("44")
	heardA.hears(t, 44)
	heardB.hears(t, 44)
}

// A resync makes up for hints that Redis did not accept. It matters to a listener that never lost its subscription: only the publisher can
// make it read again.
func TestPublisherResyncsAfterAnOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	registry := prometheus.NewRegistry()
	l, heard := listen(t, s.URL(), func(cfg *setup) { cfg.Registerer = registry })
	testkit.Eventually(t, "up", l.Up)
	proxy := pgtest.Proxy(t, s.Addr)
	p := runPublisher(t, "redis://"+proxy.Addr()+"/0", never)
	p.Notify("1")
	heard.hears(t, 1)
	testkit.Eventually(t, "an answer", p.Up) // which may come after the hint
	_, before := heard.counts(0)
	proxy.SetTarget("127.0.0.1:1")
	proxy.DropAll()
	p.Notify("2")
	testkit.Eventually(t, "not up", func() bool { return !p.Up() })
	proxy.SetTarget(s.Addr)
	testkit.Eventually(t, "up again", p.Up)
	heard.resynced(t, before)
	if n := testkit.Metric(t, registry, "auditstream_listener_connects_total"); n != 1 {
		t.Errorf("%v subscriptions, want the one that was to be left alone", n)
	}
	p.Notify("3")
	heard.hears(t, 3)
}

// A connection that swallows everything ends within its time-outs.
func TestBlackHoledPublisherRecovers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := pgtest.Proxy(t, s.Addr)
	p := runPublisher(t, "redis://"+proxy.Addr()+"/0", func() bool { return true }, func(c *PublisherConfig) { c.HeartbeatInterval = 50 * time.Millisecond })
	testkit.Eventually(t, "up", p.Up)
	proxy.Pause()
	testkit.Eventually(t, "not up", func() bool { return !p.Up() })
	proxy.Resume()
	testkit.Eventually(t, "up again", p.Up)
}

// A flood that Redis does not accept takes bounded memory, and one message makes up for it.
func TestPublisherIsBounded(t *testing.T) {
	t.Parallel()
	p, err := NewPublisher(PublisherConfig{Redis: options(t, "redis://127.0.0.1:1/0")})
	testkit.NoError(t, err)
	for id := range int64(maxPending) {
		p.Notify(string(store.IntKey(id + 1)))
		p.Notify(string(store.IntKey(id + 1)))
	}
	if len(p.rows) != maxPending || p.resync {
		t.Fatalf("%d wait, resync %v", len(p.rows), p.resync)
	}
	for id := range int64(maxPending) {
		p.Notify(string(store.IntKey(maxPending + id + 1)))
	}
	testkit.Eventually(t, "the resync", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.resync
	})
	if len(p.rows) > maxPending {
		t.Errorf("%d wait, want no more than %d", len(p.rows), maxPending)
	}
}

// With a second relay, a hub may read a change twice, but shows it once.
func TestTwoRelaysDoNoHarm(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rows := new(rowReads)
	hub, err := pgnotify.NewHub(pgnotify.HubConfig{Loader: rows, Announcer: alwaysAnnouncer{}, Interval: time.Hour})
	testkit.NoError(t, err)
	start(t, hub.Run)
	l, _ := listen(t, s.URL(), func(cfg *setup) { cfg.Sink = hubSink{hub} })
	woken := make(chan struct{}, 1000)
	sub, err := hub.Subscribe(t.Context(), []store.Key{"7"}, func() { woken <- struct{}{} })
	testkit.NoError(t, err)
	defer sub.Cancel()
	sub.Confirm()
	testkit.Eventually(t, "up", l.Up)
	relays := []*Publisher{runPublisher(t, s.URL(), never), runPublisher(t, s.URL(), never)}
	shown := 0
	for n := range int64(20) {
		rows.progress.Store(n + 1)
		for _, p := range relays {
			p.Notify("7")
			p.Resync()
		}
		testkit.Eventually(t, "the change", func() bool {
			for _, state := range sub.Take() {
				shown++
				if state.Row.Progress == int(n+1) {
					return true
				}
			}
			return false
		})
	}
	if reads := rows.reads.Load(); shown > 21 || reads > 2*20+20 {
		t.Errorf("%d reads, shown %d times, of 20 changes", reads, shown)
	}
}

// hubSink is a Sink that understands only keys of audits.
type hubSink struct{ *pgnotify.Hub }

func (s hubSink) Notify(row string) bool {
	key, ok := store.ParseKey(row)
	if ok {
		s.Hub.Notify(key)
	}
	return ok
}

// alwaysAnnouncer is the Announcer for triggers that notify of every change.
type alwaysAnnouncer struct{}

func (alwaysAnnouncer) Attach(func(func(store.Key) bool)) {}
func (alwaysAnnouncer) Want(store.Key)                    {}
func (alwaysAnnouncer) Leave(store.Key)                   {}
func (alwaysAnnouncer) Announced(store.Key) bool          { return true }
func (alwaysAnnouncer) Flood(bool)                        {}

// rowReads is a Loader of one row.
type rowReads struct{ progress, reads atomic.Int64 }

func (r *rowReads) Rows(context.Context, []store.Key) ([]*store.State, error) {
	r.reads.Add(1)
	return []*store.State{store.NewState(store.Row{ID: "7", Status: "running", Progress: int(r.progress.Load())})}, nil
}

// While Redis was away and there was nothing to publish, the log said each second that Redis takes hints again.
func TestNothingToPublishIsNoSuccess(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := pgtest.Proxy(t, s.Addr)
	var log testkit.Log
	turns := make(chan struct{})
	p := runPublisher(t, "redis://"+proxy.Addr()+"/0", func() bool { // Run calls it whenever there may be something to publish
		select {
		case turns <- struct{}{}:
		default:
		}
		return false
	}, func(c *PublisherConfig) { c.HeartbeatInterval, c.Logger = 100*time.Millisecond, log.Logger() })
	for range 3 {
		p.Resync()
		testkit.Eventually(t, "up", p.Up)
		proxy.SetTarget("127.0.0.1:1")
		proxy.DropAll()
		p.Notify("1")
		testkit.Eventually(t, "not up", func() bool { return !p.Up() })
		for range 3 { // in which no resync is due
			<-turns
		}
		proxy.SetTarget(s.Addr)
		testkit.Eventually(t, "up again", p.Up)
	}
	if lost, found := log.Count("takes no hints"), log.Count("takes hints again"); lost != 3 || found < 2 || found > 3 {
		t.Errorf("%d warnings, %d recoveries:\n%s", lost, found, log.String())
	}
}
