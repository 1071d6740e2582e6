package faults

import (
	"errors"
	"fmt"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// One of three instances has lost the database without a word; the others have not. Its streams stay open, and show what
// they showed; /readyz tells; whoever comes new is served by the others, with health checks or, by nginx, at the second
// or third attempt. Those on it go on when the database is back, or elsewhere when the instance is stopped.
func TestBalancerInstanceCutOff(t *testing.T) {
	t.Parallel()
	back := func(_ testing.TB, way *pgtest.TCPProxy, _ *harness.Instance) { way.Resume() }
	stopped := func(t testing.TB, _ *pgtest.TCPProxy, i *harness.Instance) {
		i.Stop(t)
	}
	for _, c := range []cutOffCase{
		{"nginx, and back", harness.StartNginx, back},
		{"nginx, and stopped", harness.StartNginx, stopped},
		{"haproxy, and stopped", startHAProxy, stopped},
		{"caddy, and back", startCaddy, back},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			harness.Measure(t, func() error { return c.run(t) })
		})
	}
}

type cutOffCase struct {
	name  string
	start func(testing.TB, []string) *harness.Balancer
	mend  func(testing.TB, *pgtest.TCPProxy, *harness.Instance)
}

// run returns an error when there was nothing to cut off.
func (c cutOffCase) run(t *testing.T) error {
	const clients = 60
	db := harness.NewDatabase(t)
	ids := db.InsertMany(t, 6)
	way, cut := pgtest.ProxyDSN(t, db.Serve)
	f := &harness.Fleet{Running: make([]*harness.Instance, 3)}
	addrs := make([]string, len(f.Running))
	for k := range addrs {
		addrs[k] = harness.QuietAddr(t)
		dsn := db.Serve
		if k == 0 {
			dsn = cut
		}
		f.Set(k, harness.Launch(t, harness.PlainBinary(t), dsn, "HTTP_ADDR="+addrs[k], "SSE_RETRY_MS=1000", "SSE_HEARTBEAT_SECONDS=60", "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"))
	}
	for k := range addrs {
		f.Get(k).WaitReady(t, "up")
	}
	b := c.start(t, addrs)
	answersForItself(t, b, db)
	harness.Becomes(t, f.Streams, 0, "streams that are open after the only client has gone")
	first := b.Followed(t, clients, ids)
	harness.Eventually(t, func() error {
		if open, behind := f.Streams(), first.Behind(0); open != clients || behind > 0 {
			return fmt.Errorf("%d streams are open, and %d clients have no state, want %d and 0", open, behind, clients)
		}
		return nil
	})
	onIt, before := f.Open(0), first.Reconnects.Load() // a busy machine may have sent some away at first
	if onIt == 0 {
		return errors.New("no client is on the instance that is to be cut off: the balancer found it too slow")
	}

	way.Pause()
	db.SetAll(t, 1)
	harness.Eventually(t, func() error {
		if status, body := f.Get(0).Get(t, "/readyz"); status != 503 {
			return fmt.Errorf("/readyz of the one that is cut off: %d %s, want 503", status, body)
		}
		if behind := first.Behind(1); behind > onIt {
			return fmt.Errorf("%d clients have not seen state 1, but only %d are on the instance that is cut off", behind, onIt)
		}
		return nil
	})
	second := b.Followed(t, clients/2, ids)
	harness.Becomes(t, func() int { return second.Behind(1) }, 0, "new clients that have not seen state 1")
	for k := 1; k < len(addrs); k++ {
		f.Get(k).WaitReady(t, "up")
	}
	if open, n := f.Open(0), first.Reconnects.Load()-before; open != onIt || n > 0 {
		t.Errorf("%d streams are open on the instance that is cut off, and %d clients of old came back; want %d and 0", open, n, onIt)
	}

	c.mend(t, way, f.Get(0))
	db.SQL(t, `update audits set total_pages = 2, status = 'completed'`)
	harness.Eventually(t, func() error {
		if a, b := first.Left(), second.Left(); a+b > 0 {
			return fmt.Errorf("%d clients of old and %d new ones have not seen their audit's end", a, b)
		}
		return nil
	})
	first.Check(t)
	second.Check(t)
	return nil
}
