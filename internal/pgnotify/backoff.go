package pgnotify

import (
	"cmp"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// Backoff computes the delays between attempts. They double from 100 ms to 5 s, or to longest; half of each delay is random.
type Backoff struct{ last, longest time.Duration }

// Next returns the delay before the next attempt.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, backoffMin), cmp.Or(b.longest, backoffMax))
	return b.last/2 + rand.N(b.last/2)
}

// Throttle runs a function once a second at most. It is for work that any role of the database can ask for with a notification. The zero
// value is ready for use. Safe for concurrent use.
type Throttle struct {
	mu      sync.Mutex
	last    time.Time
	pending bool
}

const throttleInterval = time.Second

// Do calls f in a new goroutine: at once, or a second after the last call. While a call is due it does nothing. It does not block.
func (t *Throttle) Do(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending {
		return
	}
	t.pending = true
	time.AfterFunc(time.Until(t.last.Add(throttleInterval)), func() {
		t.mu.Lock()
		t.last, t.pending = time.Now(), false
		t.mu.Unlock()
		f()
	})
}
