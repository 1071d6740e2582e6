package faults

import (
	"fmt"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/redistest"
)

// missedWithin is by when an instance has said that it hears no relay: the relay's time-out, and a canary's interval and time-out.
const missedWithin = 17 * time.Second

// Of two relays either may be killed: every viewer is told each state once and in order, no state waits for the safety net, which
// is an hour away, and the instances miss no relay.
func TestEitherOfTwoRelaysMayDie(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	redis := redistest.Start(t)
	first, second := relay(t, db, redis.URL()), relay(t, db, redis.URL())
	var streams []*harness.Stream
	var instances []*harness.Instance
	for range 2 {
		i := harness.ServeReady(t, db.Serve, "SSE_SOURCE=redis", "REDIS_URL="+redis.URL(), "REDIS_RELAY=on", "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
		instances = append(instances, i)
		for range 2 {
			s := i.Watch(t, "1", harness.AliceToken(t))
			defer s.Cancel()
			s.NextProgress(t)
			streams = append(streams, s)
		}
	}
	db.WatchedBy(t, "1", 2)
	step := 0
	change := func() {
		t.Helper()
		step++
		want := fmt.Sprintf("step %d", step)
		db.SQL(t, fmt.Sprintf("update audits set message = '%s' where id = 1", want))
		for n, s := range streams {
			// The next event, not one that comes later: a state that is told twice fails here, as does one that is left out.
			if got := s.NextProgress(t).Message; got == nil || *got != want {
				t.Fatalf("viewer %d is told %v, want %q", n, got, want)
			}
		}
	}
	kill := func(r *harness.Instance) {
		t.Helper()
		harness.NoError(t, r.Cmd.Process.Kill())
	}
	changeFor := func(d time.Duration) {
		t.Helper()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for over := time.After(d); ; {
			select {
			case <-over:
				return
			case <-tick.C:
				change()
			}
		}
	}
	changeFor(time.Second)
	for _, r := range []*harness.Instance{first, second} {
		for r.Metric(t, "auditstream_relay_published_total") < 5 { // the slower of the two makes one hint of several
			change()
		}
	}
	kill(first)
	changeFor(missedWithin)
	first = relay(t, db, redis.URL())
	kill(second)
	changeFor(time.Second)
	first.WaitMetric(t, "auditstream_relay_published_total", harness.AtLeast(1))
	for _, i := range instances {
		i.WaitReady(t, "up")
		harness.WantNoneIn(t, i.Log.String(), "no relay is heard")
	}
}
