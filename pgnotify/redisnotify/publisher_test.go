package redisnotify

import (
	"log/slog"
	"testing"

	"auditstream/integration/redistest"
)

func relay(t *testing.T, s *redistest.Server) *Publisher {
	t.Helper()
	p, err := NewPublisher(options(t, s.URL()), slog.New(slog.DiscardHandler))
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

// Hints that Redis did not take are made up for by a resync, even to a listener that never lost its subscription.
func TestPublisherResyncsAfterAnOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := relay(t, s)
	p.Notify(1)
	s.Kill()
	p.Notify(2)
	eventually(t, "a resync that waits", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.resync
	})
	s.Restart(t)
	eventually(t, "the resync gone", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.resync
	})
	l, heard := listen(t, s.URL())
	eventually(t, "up", l.Up)
	p.Notify(3)
	eventually(t, "a hint", func() bool { told, _ := heard.counts(3); return told > 0 })
}

// A flood that Redis does not take is one message.
func TestPublisherIsBounded(t *testing.T) {
	t.Parallel()
	p, err := NewPublisher(options(t, "redis://127.0.0.1:1/0"), slog.New(slog.DiscardHandler))
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
