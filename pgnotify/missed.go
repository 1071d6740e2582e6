package pgnotify

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// announceGrace is how long a notification may trail the read that already saw its change.
const announceGrace = 2 * time.Second

// missedChanges counts the changes that a read found and no notification announced: the sign of a lost or disabled
// trigger, or of a LISTEN that does not work. Guarded by Hub.mu.
type missedChanges struct {
	found   map[int64]time.Time // changes that no notification has announced so far, by audit
	counter prometheus.Counter
	logger  *slog.Logger
	logged  time.Time
	pending int // counted since logged
}

// suspect remembers a change that was found without a notification. It may still be on its way.
func (m *missedChanges) suspect(id int64) {
	if _, ok := m.found[id]; !ok {
		m.found[id] = time.Now()
	}
}

// announced clears the suspicion: the notification came, or another reason is known why there is none.
func (m *missedChanges) announced(id int64) { delete(m.found, id) }

// settle counts the changes whose notification should have come by now, unless undecided says of an audit, and the moment when
// its change was found, that there may be none; and reports whether others remain. At most once a minute it logs how many
// there were.
func (m *missedChanges) settle(undecided func(id int64, found time.Time) bool) (remain bool) {
	now := time.Now()
	for id, since := range m.found {
		if now.Sub(since) >= announceGrace && !undecided(id, since) {
			delete(m.found, id)
			m.counter.Inc()
			m.pending++
		}
	}
	if m.pending > 0 && now.Sub(m.logged) >= time.Minute {
		m.logger.Warn("changes were found that no notification announced; is a trigger missing or disabled, or LISTEN blocked by a pooler? Run auditstream doctor: it says which, and what to do",
			"changes", m.pending)
		m.logged, m.pending = now, 0
	}
	return len(m.found) > 0
}
