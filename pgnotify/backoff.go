package pgnotify

import (
	"math/rand/v2"
	"time"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// Backoff grows from 100 ms to 5 s; each delay is half fixed, half random.
type Backoff struct{ last time.Duration }

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, backoffMin), backoffMax)
	return b.last/2 + rand.N(b.last/2)
}

// turn has the log say when something turns bad and when it is good again, not each time.
type turn struct{ is bool }

func (t *turn) bad(say func()) {
	if !t.is {
		say()
	}
	t.is = true
}

func (t *turn) good(say func()) {
	if t.is {
		say()
	}
	t.is = false
}

// bell wakes a goroutine that waits for it. Ringing does not block, and once is as good as often.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default: // already ringing
	}
}
