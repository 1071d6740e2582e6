package pgnotify

import "time"

// idleCheck is how soon it is seen that somebody watches again, whom nothing was asked for before.
const idleCheck = 100 * time.Millisecond

// Idle reports whether nobody watches anything. The database is then left alone: it may be one that sleeps. Safe for concurrent use.
func (h *Hub) Idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries) == 0 && len(h.owned.subs) == 0
}
