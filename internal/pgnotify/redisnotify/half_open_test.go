package redisnotify

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"
	"auditstream/internal/testkit"

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
	testkit.Eventually(t, "up", l.Up)
	_, before := heard.counts(0)
	hole.Pause() // for ever
	heard.resynced(t, before)
	if n := testkit.Metric(t, registry, "auditstream_listener_failures_total", "silent"); n < 1 {
		t.Errorf("%v subscriptions were given up because they were silent, want one", n)
	}
	testkit.Eventually(t, "up again", l.Up)
	publish(t, options(t, s.URL()), channel(9), "")
	heard.hears(t, 9)
}

// When only publishing fails, nothing is proven, but the subscription is kept and its messages are heard.
func TestSubscriptionIsKeptWhileNoCanaryCanBeSent(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	hole := pgtest.Proxy(t, s.Addr)
	registry := prometheus.NewRegistry()
	var log testkit.Log
	l, heard := listen(t, s.URL(), firstDial(s.Addr, hole.Addr()), impatient, func(cfg *setup) {
		cfg.Logger, cfg.Registerer = log.Logger(), registry
	})
	testkit.Eventually(t, "up", l.Up)
	hole.Pause()
	testkit.Eventually(t, "polling", func() bool { return !l.Up() })
	publish(t, options(t, s.URL()), channel(9), "")
	heard.hears(t, 9)
	hole.Resume()
	testkit.Eventually(t, "up again", l.Up)
	if n := testkit.Metric(t, registry, "auditstream_listener_connects_total"); n != 1 {
		t.Errorf("%v subscriptions, want the one that works", n)
	}
	if n := log.Count("no canary can be sent"); n != 1 {
		t.Errorf("%d warnings, want one:\n%s", n, log.String())
	}
}
