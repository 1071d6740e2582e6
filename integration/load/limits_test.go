package load

import (
	"fmt"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// Many more clients than there are places, all at once and again and again: no limit is ever passed, every place is used,
// and none is lost.
func TestLoadLimitsHoldWhenEverybodyComesAtOnce(t *testing.T) {
	t.Parallel()
	const total, perUser, users, each = 100, 30, 4, 60
	db, i := harness.ServeNew(t, fmt.Sprint("SSE_MAX_STREAMS=", total), fmt.Sprint("SSE_MAX_STREAMS_PER_USER=", perUser))
	inside := func(s *swarm) int { return s.count(func(c *socket) bool { return c.last >= 0 }) }

	var swarms []*swarm
	var ids []string
	for u := range users {
		name := fmt.Sprint("user", u)
		ids = append(ids, db.SQL(t, "insert into audits (url, user_id, total_pages) values ('https://example.com', '"+name+"', 0) returning id"))
		swarms = append(swarms, newSwarmOf(t, i, harness.Token(t, jwt.MapClaims{"sub": name}), each, ids[u:]))
	}
	// check looks at all limits from outside.
	check := func() (open int) {
		for u, s := range swarms {
			n := inside(s)
			if n > perUser {
				t.Errorf("user %d has %d streams, want %d at most", u, n, perUser)
			}
			open += n
		}
		if metric := i.Metric(t, harness.StreamsOpen); metric > total {
			t.Errorf("%v streams are open, want %d at most", metric, total)
		}
		return open
	}
	full := func() error {
		if open := check(); open != total {
			return fmt.Errorf("%d clients are in, want %d", open, total)
		}
		return nil
	}
	harness.Eventually(t, full) // 4 users could have 30 each
	for start := time.Now(); time.Since(start) < time.Second && !t.Failed(); {
		check() // the others keep knocking
	}
	again := 0
	for _, s := range swarms {
		again += s.count(func(c *socket) bool { return c.last < 0 && c.refused > 1 })
	}
	if again < users*each-total {
		t.Errorf("%d clients were refused and came back, want %d at least", again, users*each-total)
	}

	swarms[0].leave()
	harness.Becomes(t, check, 3*perUser, "clients that are in after a user has left")
	for _, s := range swarms {
		s.leave()
	}
	i.WaitMetric(t, harness.StreamsOpen, harness.AtMost(0))
	back := newSwarmOf(t, i, harness.Token(t, jwt.MapClaims{"sub": "user0"}), perUser, ids[:1])
	back.served(t, 1, 0) // nobody's place was lost
}
