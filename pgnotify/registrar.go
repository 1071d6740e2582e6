package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"auditstream/store"
)

const (
	// lockTimeout bounds one statement of the registrar's.
	lockTimeout = 2 * time.Second
	// takeBatch is how many buckets one statement takes or gives back.
	takeBatch = 1024
	// A bucket that could not be taken is tried again after retryMin, then less and less often.
	retryMin, retryMax = 2 * time.Millisecond, time.Second
	// lingers is for how long the lock of a bucket is kept in which nobody watches any more, so that a page that is reloaded finds it.
	lingers = 2 * time.Second
)

// Beginning stands for whatever begins, where a key is asked for: somebody watches all of an owner's.
const Beginning store.Key = ""

// Locks is the session in which an instance holds the locks by which writers see that somebody watches; see
// docs/watch-as-locks.md. They end with it.
type Locks interface {
	// Take takes buckets and returns those that it got, as a writer may be looking at the others at this moment; and then, in a
	// statement of its own, what Snapshot does. An error, here and below, says that nothing was done or that the session has ended.
	Take(ctx context.Context, buckets []int32) (taken []int32, open Snapshot, err error)
	// GiveBack gives back buckets that were taken.
	GiveBack(ctx context.Context, buckets []int32) error
	// Snapshot says which transactions have an id and have not ended.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Registrar tells writers what somebody watches: it holds the locks of the buckets that it is in, waits for whoever looked before
// they were held, and has what is in them read. All methods are safe for concurrent use, and none but Run blocks.
type Registrar struct {
	mark   func(chosen func(store.Key) bool) // has what is watched and chosen read; must not block
	logger *slog.Logger
	wake   chan struct{} // capacity 1: there is something to do

	mu        sync.Mutex
	watched   [maxBuckets]int // keys that somebody watches
	beginning int             // 1: somebody watches all of an owner's
	locks     Locks           // nil: nobody listens, so that a notification would be in vain
	session   int             // counts the sessions
	number    int32           // of buckets; the lock of this number is Beginning's
	buckets   map[int32]*bucket
	flooded   bool
	waits     waits
	retry     time.Duration // until what could not be taken is tried again
	warned    bool
}

// bucket is one in which somebody watches, or has until a while ago.
type bucket struct {
	watched int // keys
	held    bool
	settled bool      // held, and nobody is waited for who looked before
	left    time.Time // when the last who watched left; zero: somebody watches
}

// NewRegistrar returns a Registrar that does nothing until Run. mark is called without any lock held, with what is true of each key
// whose changes may not have been announced.
func NewRegistrar(mark func(chosen func(store.Key) bool), logger *slog.Logger) *Registrar {
	return &Registrar{mark: mark, logger: logger, wake: make(chan struct{}, 1), number: maxBuckets, buckets: make(map[int32]*bucket)}
}

// Session says which session holds the locks from now on, and into how many buckets the triggers put keys; nil: none does. Whatever
// was held has gone with the one before.
func (r *Registrar) Session(locks Locks, number int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locks, r.waits = locks, waits{}
	r.session++
	for _, b := range r.buckets {
		b.held, b.settled = false, false
	}
	if locks != nil && number != r.number {
		r.number = number
		clear(r.buckets)
		for fine, keys := range r.watched {
			if keys > 0 {
				r.bucket(int32(fine) & (number - 1)).watched += keys
			}
		}
		if r.beginning > 0 {
			r.bucket(number).watched = r.beginning
		}
	}
	r.ring()
}

// bucket returns a bucket, which is made when there is none. The caller holds mu.
func (r *Registrar) bucket(number int32) *bucket {
	b := r.buckets[number]
	if b == nil {
		b = new(bucket)
		r.buckets[number] = b
	}
	return b
}

// numberOf is the number of the lock that is a key's. The caller holds mu.
func (r *Registrar) numberOf(key store.Key) int32 {
	if key == Beginning {
		return r.number
	}
	return bucketOf(key) & (r.number - 1)
}

// count adds to the keys that are watched in the bucket of one. The caller holds mu.
func (r *Registrar) count(key store.Key, change int) *bucket {
	if key == Beginning {
		r.beginning += change
	} else {
		r.watched[bucketOf(key)] += change
	}
	b := r.bucket(r.numberOf(key))
	b.watched += change
	return b
}

// Announced implements [Announcer].
func (r *Registrar) Announced(key store.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[r.numberOf(key)]
	return b != nil && b.settled
}

// Want implements [Announcer].
func (r *Registrar) Want(key store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.count(key, 1)
	b.left = time.Time{}
	if !b.held {
		r.retry = 0
		r.ring()
	}
}

// Leave implements [Announcer].
func (r *Registrar) Leave(key store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.count(key, -1); b.watched == 0 {
		b.left = time.Now()
		r.ring()
	}
}

// Flood implements [Announcer]: all is given back meanwhile.
func (r *Registrar) Flood(flooded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flooded = flooded
	r.ring()
}

// Unheld returns in how many buckets somebody watches without that writers know.
func (r *Registrar) Unheld() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, b := range r.buckets {
		if b.watched > 0 && !b.held {
			n++
		}
	}
	return n
}

func (r *Registrar) ring() {
	select {
	case r.wake <- struct{}{}:
	default: // already ringing
	}
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
		r.giveBack(ctx)
		r.take(ctx)
		r.await(ctx)
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
	if len(r.waits.lists) > 0 {
		next = r.waits.delay
	}
	for _, b := range r.buckets {
		switch {
		case b.watched > 0 && !b.held && !r.flooded:
			next = min(next, r.retry)
		case b.held && r.flooded:
			next = min(next, retryMax)
		case b.watched == 0:
			next = min(next, max(time.Until(b.left.Add(lingers)), time.Millisecond))
		}
	}
	return next
}

// logTurn logs when the session begins to refuse and when it works again. The caller holds mu.
func (r *Registrar) logTurn(err error) {
	switch {
	case err != nil && !r.warned:
		r.logger.Warn("writers cannot be told what is watched; the safety net finds changes meanwhile", "error", err)
	case err == nil && r.warned:
		r.logger.Info("writers are told what is watched again")
	}
	r.warned = err != nil && !errors.Is(err, context.Canceled)
}
