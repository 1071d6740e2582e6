package redisnotify

import (
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"
	"auditstream/internal/testkit"
)

// A relay that hears nothing from PostgreSQL any more, or that is needed and was never there, is noticed although Redis works.
func TestDeadRelayIsMissed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var source atomic.Pointer[Source]
	l, heard := listen(t, s.URL(), func(cfg *setup) {
		cfg.doubt = func(s *Source) string {
			source.Store(s)
			if s.RelayDead(true) {
				return "no relay is heard"
			}
			return ""
		}
	})
	heard.resynced(t, 0)
	publish(t, options(t, s.URL()), channel(7), "")
	heard.hears(t, 7)
	testkit.Eventually(t, "a proof", func() bool { return source.Load() != nil })
	if l.Up() || source.Load().RelayDead(false) || source.Load().Relayed() {
		t.Error("up without a relay, or one is missed that is not needed")
	}
	var listens atomic.Bool
	runPublisher(t, s.URL(), listens.Load, func(c *PublisherConfig) { c.HeartbeatInterval = 50 * time.Millisecond })
	for range 2 {
		listens.Store(true)
		testkit.Eventually(t, "up", l.Up)
		if !source.Load().Relayed() {
			t.Error("no relay was heard")
		}
		listens.Store(false)
		testkit.Eventually(t, "polling", func() bool { return !l.Up() })
		if !source.Load().RelayDead(false) {
			t.Error("what was there is not missed")
		}
	}
}

// A missing canary shows that a connection swallows everything, or that a middlebox has forgotten it. The connection is closed.
func TestBlackHoledSubscriptionRecovers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := pgtest.Proxy(t, s.Addr)
	l, heard := listen(t, "redis://"+proxy.Addr()+"/0", impatient)
	testkit.Eventually(t, "up", l.Up)
	for range 2 {
		proxy.Pause()
		testkit.Eventually(t, "polling", func() bool { return !l.Up() })
		_, before := heard.counts(0)
		proxy.DropAll()
		proxy.Resume()
		testkit.Eventually(t, "up again", l.Up)
		if _, after := heard.counts(0); after <= before {
			t.Error("no resync")
		}
	}
}
