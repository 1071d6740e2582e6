package pgnotify

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
	// muteSessions is after how many silent connections in a row, of which none was proven, it counts as mute.
	muteSessions = 2
	// muteAfterProof is the same where it has worked before, about a minute: a database or a machine that stands still delivers
	// nothing either, and to wait for the longer time after that would be the longer outage.
	muteAfterProof = 8
)

// Backoff grows from 100 ms to 5 s, or to longest; each delay is half fixed, half random.
type Backoff struct{ last, longest time.Duration }

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, backoffMin), cmp.Or(b.longest, backoffMax))
	return b.last/2 + rand.N(b.last/2)
}

// ErrCannot is, in its chain, why a connection ended that time will not mend.
var ErrCannot = errors.New("notifications are impossible here")

// ErrSilent is why a connection is given up on which nothing arrives.
var ErrSilent = errors.New("a canary notification did not come back")

// Texts are what the log says of a connection that is to be there all the time.
type Texts struct {
	Up   string // it works
	Lost string // it does not, and is tried again soon
	Mute string // it cannot, as far as is seen; the remedy is in it
}

// connection is kept by one session after the other.
type connection struct {
	session func(ctx context.Context) (proven bool, err error) // returns why it ended, and whether it worked
	texts   Texts
	logger  *slog.Logger
	rest    time.Duration // between attempts once it is mute
	hurry   Bell          // has the next attempt made at once
}

// run has sessions run until ctx is done, and returns nil. The log says once that they fail, until one was proven.
func (c connection) run(ctx context.Context) error {
	var delays Backoff
	silent, limit, logged := 0, muteSessions, ""
	for {
		began := time.Now()
		proven, err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if proven {
			silent, limit, logged = 0, muteAfterProof, ""
			if time.Since(began) > backoffMax { // and not where each breaks at once
				delays = Backoff{}
			}
		}
		if errors.Is(err, ErrSilent) && !proven {
			silent++
		}
		delay := delays.Next()
		switch mute := silent >= limit || errors.Is(err, ErrCannot); {
		case mute:
			delay = c.rest - rand.N(c.rest/10+1)
			if logged != c.texts.Mute {
				c.logger.Error(c.texts.Mute, "error", err, "next_attempt_in", c.rest)
			}
			logged = c.texts.Mute
		case logged == "":
			c.logger.Warn(c.texts.Lost, "error", err)
			logged = c.texts.Lost
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		case <-c.hurry:
		}
	}
}

// Trouble has the log say when something begins to fail and when it works again, not each time. The zero value is ready for use.
type Trouble struct{ is bool }

// Log logs err at level as what fails, or nil as what works, where it is a change.
func (t *Trouble) Log(logger *slog.Logger, level slog.Level, err error, fails, works string) {
	switch is := err != nil; {
	case is && !t.is:
		logger.Log(context.Background(), level, fails, "error", err)
	case !is && t.is:
		logger.Info(works)
	}
	t.is = err != nil
}

// Throttle has something done once a second at most: any role of the database can ask for it as often as it likes. The zero value is
// ready for use, also by several goroutines.
type Throttle struct {
	mu      sync.Mutex
	last    time.Time
	pending bool
}

const throttleInterval = time.Second

// Do has f called in a goroutine of its own, unless an earlier call is yet to come. It does not block.
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

// Bell wakes a goroutine that waits for it. Ringing does not block, and once is as good as often.
type Bell chan struct{}

// NewBell returns one that does not ring.
func NewBell() Bell { return make(Bell, 1) }

// Ring rings.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default: // already ringing
	}
}
