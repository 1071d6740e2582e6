package server

import "sync"

// streamLimit counts open streams, in total and by user. Safe for concurrent use.
type streamLimit struct {
	total, perUser int // 0: no limit

	mu    sync.Mutex
	open  int
	users map[string]int
}

func newStreamLimit(total, perUser int) *streamLimit {
	return &streamLimit{total: total, perUser: perUser, users: make(map[string]int)}
}

// acquire counts a stream of the user, or reports that there is no room. An open stream is never ended to make room: its
// client would come back and push out the next.
func (l *streamLimit) acquire(user string) bool {
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

func (l *streamLimit) release(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.users[user]--; l.users[user] == 0 {
		delete(l.users, user)
	}
}

func (l *streamLimit) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}
