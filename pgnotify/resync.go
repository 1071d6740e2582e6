package pgnotify

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// resyncInterval is the time between two reads of everything watched that notifications can cause. Any database role can
// send "*" as often as it likes; without a bound it would keep the database reading all that is watched without a pause.
const resyncInterval = time.Second

// ResyncLimiter passes the first request on at once, and of those that follow too soon one, at the end of the interval: a
// change that any of them announced is read. Safe for concurrent use.
type ResyncLimiter struct {
	resync func() // must not block
	limit  *rate.Limiter

	mu      sync.Mutex
	pending *time.Timer // nil: none waits
	stopped bool
}

// NewResyncLimiter returns a limiter of calls of resync, which must not block.
func NewResyncLimiter(resync func()) *ResyncLimiter {
	return &ResyncLimiter{resync: resync, limit: rate.NewLimiter(rate.Every(resyncInterval), 1)}
}

// Request asks for a call, now or at the end of the interval.
func (l *ResyncLimiter) Request() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil || l.stopped {
		return
	}
	delay := l.limit.Reserve().Delay()
	if delay == 0 {
		l.resync()
		return
	}
	l.pending = time.AfterFunc(delay, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pending = nil
		if !l.stopped {
			l.resync()
		}
	})
}

// Stop forgets what waits: the session is over, and the next begins with a resync of its own.
func (l *ResyncLimiter) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	if l.pending != nil {
		l.pending.Stop()
	}
}
