package redisnotify

import (
	"context"
	"testing"
	"time"

	"auditstream/integration/pgtest"
	"auditstream/integration/redistest"

	"github.com/prometheus/client_golang/prometheus"
)

func relay(t *testing.T, s *redistest.Server) *Publisher {
	t.Helper()
	p, err := NewPublisher(PublisherConfig{Redis: options(t, s.URL())})
	if err != nil {
		t.Fatal(err)
	}
	start(t, p.Run)
	return p
}

// What one is told every listener hears; a second one does no harm.
func TestPublishersReachAllListeners(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, heardA := listen(t, s.URL())
	b, heardB := listen(t, s.URL())
	eventually(t, "up", func() bool { return a.Up() && b.Up() })
	for _, p := range []*Publisher{relay(t, s), relay(t, s)} {
		p.Notify(42)
		p.Resync()
		p.Notify(43) // the resync says it
	}
	eventually(t, "resyncs", func() bool {
		_, ra := heardA.counts(0)
		_, rb := heardB.counts(0)
		return ra >= 2 && rb >= 2
	})
	one := relay(t, s)
	one.Notify(44)
	eventually(t, "a hint", func() bool {
		na, _ := heardA.counts(44)
		nb, _ := heardB.counts(44)
		return na == 1 && nb == 1
	})
}

// Hints that Redis did not take are made up for by a resync, for a listener that never lost its subscription: nothing but the
// publisher tells it to read again.
func TestPublisherResyncsAfterAnOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	registry := prometheus.NewRegistry()
	l, heard := listen(t, s.URL(), func(cfg *ListenerConfig) { cfg.Registerer = registry })
	eventually(t, "up", l.Up)
	proxy := pgtest.Proxy(t, s.Addr)
	p, err := NewPublisher(PublisherConfig{Redis: options(t, "redis://"+proxy.Addr()+"/0")})
	if err != nil {
		t.Fatal(err)
	}
	start(t, p.Run)
	p.Notify(1)
	eventually(t, "a hint", func() bool { told, _ := heard.counts(1); return told == 1 })
	eventually(t, "an answer", p.Up) // which may come after the hint
	_, before := heard.counts(0)
	proxy.SetTarget("127.0.0.1:1")
	proxy.DropAll()
	p.Notify(2)
	eventually(t, "not up", func() bool { return !p.Up() })
	proxy.SetTarget(s.Addr)
	eventually(t, "up again", p.Up)
	eventually(t, "the resync", func() bool { _, resyncs := heard.counts(0); return resyncs > before })
	if n := counted(t, registry, "auditstream_listener_connects_total", ""); n != 1 {
		t.Errorf("%v subscriptions, want the one that was to be left alone", n)
	}
	p.Notify(3)
	eventually(t, "a hint", func() bool { told, _ := heard.counts(3); return told == 1 })
}

// A connection that swallows everything ends within its timeouts.
func TestBlackHoledPublisherRecovers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := pgtest.Proxy(t, s.Addr)
	p, err := NewPublisher(PublisherConfig{Redis: options(t, "redis://"+proxy.Addr()+"/0"), BeatInterval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	start(t, p.Run)
	start(t, func(ctx context.Context) error { return p.Beat(ctx, func() bool { return true }) })
	eventually(t, "up", p.Up)
	proxy.Pause()
	eventually(t, "not up", func() bool { return !p.Up() })
	proxy.Resume()
	eventually(t, "up again", p.Up)
}

// A flood that Redis does not take is one message.
func TestPublisherIsBounded(t *testing.T) {
	t.Parallel()
	p, err := NewPublisher(PublisherConfig{Redis: options(t, "redis://127.0.0.1:1/0")})
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(maxPending) {
		p.Notify(id + 1)
		p.Notify(id + 1)
	}
	if len(p.ids) != maxPending || p.resync {
		t.Fatalf("%d wait, resync %v", len(p.ids), p.resync)
	}
	for id := range int64(maxPending) {
		p.Notify(maxPending + id + 1)
	}
	if len(p.ids) != 0 || !p.resync {
		t.Errorf("%d wait, resync %v, want the resync alone", len(p.ids), p.resync)
	}
}
