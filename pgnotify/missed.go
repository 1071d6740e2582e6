package pgnotify

import "time"

// announceGrace is how long a notification may trail the read that already saw its change.
const announceGrace = 2 * time.Second

// missed counts the changes that a read found and no notification announced: the sign of a lost or disabled trigger, or of a
// LISTEN that does not work. Guarded by Hub.mu.
type missed struct {
	pending int // counted since it was logged
	logged  time.Time
}

// suspect remembers a change that a read has found and that should have been announced. Its notification may still be on its way, or
// have come during the read. The caller holds mu.
func (h *Hub) suspect(e dirtied) {
	announced := !e.wasNoticed.IsZero() || !e.noticed.IsZero()
	if announced || e.wasKnown || e.wanted == 0 || !e.silent.IsZero() || h.pace.flooded() || !h.announcer.Announced(e.key) {
		return
	}
	e.silent = time.Now()
}

// settle counts a change whose notification should have come by now. The caller holds mu.
func (h *Hub) settle(e *entry) {
	if !e.silent.IsZero() && time.Since(e.silent) >= announceGrace {
		e.silent = time.Time{}
		h.missed.pending++
		h.metrics.missed.Inc()
	}
}

// toSay returns, once a minute at most, how many there were.
func (m *missed) toSay() (n int) {
	if m.pending > 0 && time.Since(m.logged) >= time.Minute {
		n, m.logged, m.pending = m.pending, time.Now(), 0
	}
	return n
}
