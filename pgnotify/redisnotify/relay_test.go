package redisnotify

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/pgtest"
	"auditstream/integration/redistest"
	"auditstream/pgnotify"

	"github.com/prometheus/client_golang/prometheus"
)

// A relay that dies, or that hears nothing from PostgreSQL any more, is missed though Redis itself is well.
func TestDeadRelayIsMissed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var log buffer
	l, _ := listen(t, s.URL(), func(cfg *ListenerConfig) {
		cfg.RelayTimeout = 2 * time.Second
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	eventually(t, "up without any relay", l.Up)
	p, err := NewPublisher(PublisherConfig{Redis: options(t, s.URL()), BeatInterval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	start(t, p.Run)
	var listens atomic.Bool
	listens.Store(true)
	start(t, func(ctx context.Context) error { return p.Beat(ctx, listens.Load) })
	eventually(t, "the relay heard", l.relayed)
	listens.Store(false)
	eventually(t, "polling", func() bool { return !l.Up() })
	eventually(t, "a warning", func() bool { return strings.Contains(log.String(), "no relay is heard") })
	listens.Store(true)
	eventually(t, "up again", l.Up)
}

// With NeedRelay a service that starts while the relay is dead does not take silence for peace.
func TestNeededRelayIsMissedFromTheStart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l, heard := listen(t, s.URL(), func(cfg *ListenerConfig) {
		cfg.NeedRelay = true
		cfg.CanaryInterval = time.Hour // what brings it up below is the beat
	})
	eventually(t, "a subscription", func() bool { _, resyncs := heard.counts(0); return resyncs > 0 })
	if l.Up() {
		t.Error("up without a relay")
	}
	publish(t, options(t, s.URL()), channel(7), "")
	eventually(t, "a hint all the same", func() bool { told, _ := heard.counts(7); return told == 1 })
	publish(t, options(t, s.URL()), beatChannel, "")
	eventually(t, "up", l.Up)
}

// A relay that starts with the service has until a healthy one's beat must have come before the log says that it is missed.
func TestRelayIsGivenTimeToStart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var log buffer
	registry := prometheus.NewRegistry()
	missed := func() bool { return strings.Contains(log.String(), "no relay is heard") }
	patient, heard := listen(t, s.URL(), func(cfg *ListenerConfig) {
		cfg.NeedRelay, cfg.RelayTimeout = true, time.Hour
		cfg.Logger, cfg.Registerer = slog.New(slog.NewTextHandler(&log, nil)), registry
	})
	// The third canary is sent after it has been decided what the second says.
	eventually(t, "canaries", func() bool { return counted(t, registry, "auditstream_notifications_total", pgnotify.NotifyCanary) > 2 })
	if missed() || patient.Up() {
		t.Errorf("up %v, log %s, want neither up nor a warning", patient.Up(), log.String())
	}
	publish(t, options(t, s.URL()), beatChannel, "")
	eventually(t, "up", patient.Up)
	if _, resyncs := heard.counts(0); missed() || resyncs != 1 {
		t.Errorf("%d subscriptions, log %s", resyncs, log.String())
	}

	short, _ := listen(t, s.URL(), func(cfg *ListenerConfig) {
		cfg.NeedRelay, cfg.RelayTimeout = true, 500*time.Millisecond
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	eventually(t, "a warning", missed)
	if n := strings.Count(log.String(), "no relay is heard"); n != 1 || short.Up() {
		t.Errorf("up %v, %d warnings, want one", short.Up(), n)
	}
}

// A relay passes on what the triggers ring, so they must.
func TestRelayedHintsNeedTheTriggers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var rings atomic.Bool
	l, _ := listen(t, s.URL(), func(cfg *ListenerConfig) { cfg.Ringing = rings.Load })
	eventually(t, "up, as who publishes there needs no triggers", l.Up)
	publish(t, options(t, s.URL()), beatChannel, "")
	eventually(t, "polling", func() bool { return !l.Up() })
	rings.Store(true)
	eventually(t, "up", l.Up)
}

// A connection that swallows everything is given up, and so is one that a middlebox has forgotten: a canary tells.
func TestBlackHoledSubscriptionRecovers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := pgtest.Proxy(t, s.Addr)
	l, heard := listen(t, "redis://"+proxy.Addr()+"/0")
	eventually(t, "up", l.Up)
	for range 2 {
		proxy.Pause()
		eventually(t, "polling", func() bool { return !l.Up() })
		_, before := heard.counts(0)
		proxy.DropAll()
		proxy.Resume()
		eventually(t, "up again", l.Up)
		if _, after := heard.counts(0); after <= before {
			t.Error("no resync")
		}
	}
}
