package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"auditstream/store"
)

const (
	// takeBatch is how many buckets one statement takes or gives back.
	takeBatch = 1024
	// A bucket that could not be taken is tried again after retryMin, then less and less often; so are transactions looked for that are
	// waited for.
	retryMin, retryMax = 2 * time.Millisecond, time.Second
	// lingers is for how long the lock of a bucket is kept in which nobody watches any more, so that a page that is reloaded finds it.
	lingers = 2 * time.Second
)

// Beginning stands for whatever begins, where a key is asked for: somebody watches all of an owner's.
const Beginning store.Key = ""

// Locks is the session in which an instance holds the locks by which writers see that somebody watches; see
// docs/watch-as-locks.md. They end with it. Those from maxBuckets on are Beginning's. A bucket may be taken more than once, and is
// then given back as often. After an error the session ends, unless it is another's by then. Each method takes seconds at most.
type Locks interface {
	// Take takes buckets and returns those that it got; a writer may be looking at the others at this moment.
	Take(ctx context.Context, buckets []int32) (taken []int32, err error)
	// GiveBack gives back buckets that were taken.
	GiveBack(ctx context.Context, buckets []int32) error
	// Open says which transactions have an id and have not ended, in a statement of its own: those in open, which is ascending, and all
	// from next on.
	Open(ctx context.Context) (open []uint64, next uint64, err error)
}

// Registrar tells writers what somebody watches: it holds the locks of the buckets that it is in, waits for whoever looked before
// they were held, and has what is in them read. It is an [Announcer]. All methods are safe for concurrent use, and none but Run
// blocks.
type Registrar struct {
	mark   func(chosen func(store.Key) bool) // has what is watched and chosen read; must not block
	logger *slog.Logger
	wake   bell // there is something to do

	mu      sync.Mutex
	locks   Locks // nil: there is no session
	session int   // counts the sessions
	buckets [maxBuckets + beginnings]bucket
	flooded bool
	open    []uint64      // transactions that are waited for, ascending
	retry   time.Duration // until what could not be taken is tried again
	look    time.Duration // until the transactions are looked for
	warned  turn
}

// bucket is one of those into which keys are put.
type bucket struct {
	watched int // keys that somebody watches
	held    bool
	since   uint64    // transactions from this one on look late enough, those before that are waited for did not; 0: none is waited for
	left    time.Time // when the last who watched left
}

// NewRegistrar returns a Registrar that does nothing until Run. mark is called without any
// lock held, with what is true of each key whose changes may not have been announced.
func NewRegistrar(mark func(chosen func(store.Key) bool), logger *slog.Logger) *Registrar {
	return &Registrar{mark: mark, logger: logger, wake: newBell()}
}

// Session says which session holds the locks from now on; nil: none does. Whatever was held has gone with the one before.
func (r *Registrar) Session(locks Locks) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locks, r.open = locks, nil
	r.session++
	for k := range r.buckets {
		r.buckets[k].held, r.buckets[k].since = false, 0
	}
	r.wake.ring()
}

// Announced implements [Announcer].
func (r *Registrar) Announced(key store.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, n := bucketsOf(key)
	return !slices.ContainsFunc(r.buckets[first:first+n], func(b bucket) bool { return !b.held || b.since != 0 })
}

// Want implements [Announcer].
func (r *Registrar) Want(key store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, n := bucketsOf(key)
	for k := first; k < first+n; k++ {
		if r.buckets[k].watched++; !r.buckets[k].held {
			r.retry = 0
			r.wake.ring()
		}
	}
}

// Leave implements [Announcer].
func (r *Registrar) Leave(key store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, n := bucketsOf(key)
	for k := first; k < first+n; k++ {
		if r.buckets[k].watched--; r.buckets[k].watched == 0 {
			r.buckets[k].left = time.Now()
			r.wake.ring()
		}
	}
}

// Flood implements [Announcer]: all is given back meanwhile.
func (r *Registrar) Flood(flooded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flooded = flooded
	r.wake.ring()
}

// Unheld returns in how many buckets somebody watches without that writers know, in a flood 0.
func (r *Registrar) Unheld() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flooded {
		return 0
	}
	for k := range r.buckets {
		if b := &r.buckets[k]; b.watched > 0 && !b.held {
			n++
		}
	}
	return n
}

// Run takes and gives back until ctx is done, and returns nil. It must run exactly once.
func (r *Registrar) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		t, wanted, gone := r.turn()
		if t.locks != nil {
			t.giveBack(ctx, gone)
			t.take(ctx, wanted)
			t.await(ctx)
		}
		timer.Reset(r.untilNext())
	}
}

// untilNext is how long there is nothing to do unless somebody rings.
func (r *Registrar) untilNext() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := time.Hour
	if r.locks == nil {
		return next
	}
	if len(r.open) > 0 {
		next = r.look
	}
	for k := range r.buckets {
		switch b := &r.buckets[k]; {
		case b.watched > 0 && !b.held && !r.flooded:
			next = min(next, r.retry)
		case b.watched == 0 && b.held:
			next = min(next, max(time.Until(b.left.Add(lingers)), time.Millisecond))
		}
	}
	return next
}

// logTurn logs when the session begins to refuse and when it works again. It is Run's, and called without mu.
func (r *Registrar) logTurn(err error) {
	if err == nil {
		r.warned.good(func() { r.logger.Info("writers are told what is watched again") })
	} else if !errors.Is(err, context.Canceled) {
		r.warned.bad(func() {
			r.logger.Warn("writers cannot be told what is watched; the safety net finds changes meanwhile", "error", err)
		})
	}
}
