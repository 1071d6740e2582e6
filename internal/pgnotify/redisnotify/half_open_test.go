package redisnotify

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"

	"github.com/prometheus/client_golang/prometheus"
)

// firstDial connects the first connection, which is the first subscription, to one address and all others to another.
func firstDial(first, others string) func(*setup) {
	var dials atomic.Int64
	return func(cfg *setup) {
		cfg.redis.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
			addr := others
			if dials.Add(1) == 1 {
				addr = first
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
}

// A dead subscription is silent while Redis accepts what we publish. It is replaced, with a resync.
func TestSilentSubscriptionIsReplaced(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	hole := pgtest.Proxy(t, s.Addr)
	registry := prometheus.NewRegistry()
	l, heard := listen(t, s.URL(), firstDial(hole.Addr(), s.Addr), func(cfg *setup) {
		cfg.CanaryTimeout = 5 * time.Second
		cfg.Registerer = registry
	})
	eventually(t, "up", l.Up)
	_, before := heard.counts(0)
	hole.Pause() // for ever
	eventually(t, "a new subscription", func() bool { _, resyncs := heard.counts(0); return resyncs > before })
	if n := counted(t, registry, "auditstream_listener_failures_total", "silent"); n < 1 {
		t.Errorf("%v subscriptions were given up because they were silent, want one", n)
	}
	eventually(t, "up again", l.Up)
	publish(t, options(t, s.URL()), channel(9), "")
	eventually(t, "a hint", func() bool { told, _ := heard.counts(9); return told == 1 })
}

// When only publishing fails, nothing is proven, but the subscription is kept and its messages are heard.
func TestSubscriptionIsKeptWhileNoCanaryCanBeSent(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	hole := pgtest.Proxy(t, s.Addr)
	registry := prometheus.NewRegistry()
	var log buffer
	l, heard := listen(t, s.URL(), firstDial(s.Addr, hole.Addr()), impatient, func(cfg *setup) {
		cfg.Logger, cfg.Registerer = slog.New(slog.NewTextHandler(&log, nil)), registry
	})
	eventually(t, "up", l.Up)
	hole.Pause()
	eventually(t, "polling", func() bool { return !l.Up() })
	publish(t, options(t, s.URL()), channel(9), "")
	eventually(t, "a hint all the same", func() bool { told, _ := heard.counts(9); return told == 1 })
	hole.Resume()
	eventually(t, "up again", l.Up)
	if n := counted(t, registry, "auditstream_listener_connects_total", ""); n != 1 {
		t.Errorf("%v subscriptions, want the one that works", n)
	}
	if n := strings.Count(log.String(), "no canary can be sent"); n != 1 {
		t.Errorf("%d warnings, want one:\n%s", n, log.String())
	}
}
