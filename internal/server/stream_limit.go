package server

import (
	"sync"

	"auditstream/internal/store"
)

// streamLimit counts open streams, in total and by user. Safe for concurrent use.
type streamLimit struct {
	total, perUser int // 0: no limit

	mu    sync.Mutex
	open  int
	users map[store.Owner]int
}

func newStreamLimit(total, perUser int) *streamLimit {
	return &streamLimit{total: total, perUser: perUser, users: make(map[store.Owner]int)}
}

// acquire counts a stream of the user, or returns false if a limit is reached. An open stream is never ended to make room: its client would
// reconnect and push out the next.
func (l *streamLimit) acquire(user store.Owner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total > 0 && l.open >= l.total {
		return false
	}
	if l.perUser > 0 && l.users[user] >= l.perUser {
		return false
	}
	l.open++
	l.users[user]++
	return true
}

func (l *streamLimit) release(user store.Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.users[user]--; l.users[user] == 0 {
		delete(l.users, user)
	}
}

// tooManyConnections counts a request on a connection over its address's limit, and logs the variable at most once a minute: behind a proxy
// the limit is wrong, and not the clients.
func (s *Handler) tooManyConnections() {
	s.metrics.refused.WithLabelValues(refusedLabels[errTooManyConns]).Inc()
	s.warnConnections.Do(func() {
		s.cfg.Logger.Warn("an address has more connections than HTTP_MAX_CONNECTIONS_PER_ADDRESS allows; behind a proxy, whose address all clients have, set it to 0",
			"limit", s.cfg.MaxConnectionsPerAddress)
	})
}
