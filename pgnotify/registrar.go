package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// lockTimeout bounds one statement of the registrar's.
	lockTimeout = 2 * time.Second
	// takeBatch is how many buckets one statement takes or gives back.
	takeBatch = 1024
	// A bucket that could not be taken is tried again after retryMin, then less and less often.
	retryMin, retryMax = 2 * time.Millisecond, time.Second
	// Transactions that are waited for are looked for after lookMin, then less and less often.
	lookMin, lookMax = 10 * time.Millisecond, time.Second
	// maxWaits is how many lists of open transactions are kept apart.
	maxWaits = 64
)

// Locks is the session in which an instance holds the locks by which writers see that somebody watches; see
// docs/watch-as-locks.md. They end with it.
type Locks interface {
	// Take takes buckets and returns those that it got; a writer may be looking at the others at this moment.
	Take(ctx context.Context, buckets []int32) (taken []int32, err error)
	// GiveBack gives back buckets that were taken.
	GiveBack(ctx context.Context, buckets []int32) error
	// Snapshot says which transactions have an id and have not ended, in a statement of its own.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Registrar tells writers in which buckets somebody watches: it holds the locks of those, waits for whoever looked before it had
// them, and has what is in them read. All methods are safe for concurrent use, and none but Run blocks.
type Registrar struct {
	mark   func(buckets []int32) // has what is watched in them read; must not block
	logger *slog.Logger
	wake   chan struct{} // capacity 1: there is something to do

	mu      sync.Mutex
	locks   Locks // nil: nobody listens, so that a notification would be in vain
	session int   // counts the sessions
	buckets map[int32]*bucket
	flooded bool
	waits   []waiting
	settles uint64
	retry   time.Duration // until what could not be taken is tried again
	look    time.Duration // until the next look for the end of transactions
	warned  bool
}

// bucket is one in which somebody watches, or has until a while ago.
type bucket struct {
	held    bool
	settled uint64    // grows each time that it is; 0: not held, or somebody is waited for who looked before
	left    time.Time // when the last who watched left; zero: somebody watches
}

// waiting is what a transaction may have changed that looked before the buckets were taken.
type waiting struct {
	buckets []int32
	open    []uint64 // transactions, ascending
}

// NewRegistrar returns a Registrar that does nothing until Run. mark is called without any lock held.
func NewRegistrar(mark func(buckets []int32), logger *slog.Logger) *Registrar {
	return &Registrar{mark: mark, logger: logger, wake: make(chan struct{}, 1), buckets: make(map[int32]*bucket)}
}

// Session says which session listens from now on; nil: none does. Whatever was held has gone with the one before.
func (r *Registrar) Session(locks Locks) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locks, r.waits = locks, nil
	r.session++
	for _, b := range r.buckets {
		b.held, b.settled = false, 0
	}
	r.ring()
}

// Settled returns a number while every change in a bucket from now on is announced, another each time that this has become so, and 0
// while it is not.
func (r *Registrar) Settled(number int32) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.buckets[number]; b != nil {
		return b.settled
	}
	return 0
}

// Want says that somebody watches something in a bucket, whose state was read when Settled returned what it is given. Unless it
// returns true, which says that all changes since are announced, the state has to be read again; where it can be only later, mark
// says when.
func (r *Registrar) Want(number int32, settled uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[number]
	if b == nil {
		b = new(bucket)
		r.buckets[number] = b
	}
	b.left = time.Time{}
	if !b.held {
		r.retry = 0
		r.ring()
	}
	return settled != 0 && settled == b.settled
}

// Leave says that nobody watches anything in a bucket any more.
func (r *Registrar) Leave(number int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.buckets[number]; b != nil && b.left.IsZero() {
		b.left = time.Now()
		r.ring()
	}
}

// Flood says whether notifications are so many that writers wait for each other: all is given back meanwhile.
func (r *Registrar) Flood(flooded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flooded = flooded
	r.ring()
}

// Held returns how many of the buckets in which somebody watches writers know, and how many there are.
func (r *Registrar) Held() (held, wanted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.buckets {
		if b.left.IsZero() {
			wanted++
			if b.held {
				held++
			}
		}
	}
	return held, wanted
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
	if len(r.waits) > 0 {
		next = min(next, r.look)
	}
	for _, b := range r.buckets {
		switch {
		case b.left.IsZero() && !b.held && !r.flooded:
			next = min(next, r.retry)
		case !b.left.IsZero():
			next = min(next, max(time.Until(b.left.Add(lingers)), time.Millisecond))
		}
	}
	return next
}

// take takes what somebody watches and is not held, lists who may have looked before, and has it read.
func (r *Registrar) take(ctx context.Context) {
	r.mu.Lock()
	locks, session := r.locks, r.session
	var wanted []int32
	for number, b := range r.buckets {
		if b.left.IsZero() && !b.held && !r.flooded {
			wanted = append(wanted, number)
		}
	}
	r.mu.Unlock()
	if locks == nil {
		return
	}
	for batch := range slices.Chunk(wanted, takeBatch) {
		ctx, cancel := context.WithTimeout(ctx, lockTimeout)
		taken, err := locks.Take(ctx, batch)
		var snap Snapshot
		if err == nil && len(taken) > 0 {
			snap, err = locks.Snapshot(ctx)
		}
		cancel()
		if !r.took(session, batch, taken, snap, err) {
			return
		}
		if len(taken) > 0 {
			r.mark(taken)
		}
	}
}

// took notes what take has taken, and reports whether to go on.
func (r *Registrar) took(session int, batch, taken []int32, snap Snapshot, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != session {
		return false
	}
	r.retry = min(max(2*r.retry, retryMin), retryMax)
	r.logTurn(err)
	if err != nil {
		return false // what was taken is taken again: a session may hold a lock several times
	}
	for _, number := range taken {
		r.buckets[number].held = true
	}
	if len(snap.InProgress) == 0 {
		r.settle(taken)
		return true
	}
	r.waits = append(r.waits, waiting{buckets: taken, open: snap.InProgress})
	r.look = lookMin
	r.merge()
	return true
}

// settle notes that nobody is waited for in buckets. The caller holds mu.
func (r *Registrar) settle(buckets []int32) {
	r.settles++
	for _, number := range buckets {
		if b := r.buckets[number]; b != nil && b.held {
			b.settled = r.settles
		}
	}
}

// merge keeps the lists few, while a transaction goes on for hours: what is waited for together is read together.
func (r *Registrar) merge() {
	if len(r.waits) <= maxWaits {
		return
	}
	var all waiting
	for _, w := range r.waits {
		all.buckets, all.open = append(all.buckets, w.buckets...), append(all.open, w.open...)
	}
	slices.Sort(all.buckets)
	slices.Sort(all.open)
	r.waits = []waiting{{buckets: slices.Compact(all.buckets), open: slices.Compact(all.open)}}
}

// await has read again what a transaction may have changed that looked too early and has ended.
func (r *Registrar) await(ctx context.Context) {
	r.mu.Lock()
	locks, session, waits := r.locks, r.session, len(r.waits)
	r.mu.Unlock()
	if locks == nil || waits == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	snap, err := locks.Snapshot(ctx)
	again := r.looked(session, snap, err)
	if len(again) > 0 {
		r.mark(again)
	}
}

// looked returns the buckets for which something has ended.
func (r *Registrar) looked(session int, snap Snapshot, err error) (again []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != session {
		return nil
	}
	r.look = min(2*r.look, lookMax)
	r.logTurn(err)
	if err != nil {
		return nil
	}
	set := make(map[int32]struct{})
	for k := range r.waits {
		w := &r.waits[k]
		open := slices.DeleteFunc(slices.Clone(w.open), snap.Ended)
		if len(open) < len(w.open) {
			for _, number := range w.buckets {
				set[number] = struct{}{}
			}
		}
		w.open = open
	}
	var over []int32
	r.waits = slices.DeleteFunc(r.waits, func(w waiting) bool {
		if len(w.open) == 0 {
			over = append(over, w.buckets...)
		}
		return len(w.open) == 0
	})
	for _, w := range r.waits { // taken, given back and taken again
		over = slices.DeleteFunc(over, func(number int32) bool { return slices.Contains(w.buckets, number) })
	}
	r.settle(over)
	return slices.Collect(maps.Keys(set))
}

// giveBack gives back what nobody watches any more, and in a flood everything.
func (r *Registrar) giveBack(ctx context.Context) {
	r.mu.Lock()
	locks, session := r.locks, r.session
	var gone []int32
	for number, b := range r.buckets {
		over := !b.left.IsZero() && time.Since(b.left) >= lingers
		if b.held && (over || r.flooded) {
			gone = append(gone, number)
			b.held, b.settled = false, 0
		}
		if over {
			delete(r.buckets, number)
		}
	}
	r.mu.Unlock()
	if locks == nil {
		return
	}
	for batch := range slices.Chunk(gone, takeBatch) {
		ctx, cancel := context.WithTimeout(ctx, lockTimeout)
		err := locks.GiveBack(ctx, batch)
		cancel()
		r.mu.Lock()
		if r.session == session {
			r.logTurn(err)
		}
		r.mu.Unlock()
	}
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
