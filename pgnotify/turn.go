package pgnotify

import (
	"context"
	"slices"
	"time"

	"auditstream/store"
)

// take takes what somebody watches and is not held, lists who may have looked before, and has it read.
func (r *Registrar) take(ctx context.Context) {
	r.mu.Lock()
	locks, session := r.locks, r.session
	var wanted []int32
	for number, b := range r.buckets {
		if b.watched > 0 && !b.held && !r.flooded {
			wanted = append(wanted, number)
		}
	}
	r.mu.Unlock()
	if locks == nil {
		return
	}
	for batch := range slices.Chunk(wanted, takeBatch) {
		ctx, cancel := context.WithTimeout(ctx, lockTimeout)
		taken, open, err := locks.Take(ctx, batch)
		cancel()
		if !r.took(session, taken, open.InProgress, err) {
			return
		}
		r.markIn(taken)
	}
}

// took notes what take has taken, and reports whether to go on.
func (r *Registrar) took(session int, taken []int32, open []uint64, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != session {
		return false
	}
	r.retry = min(max(2*r.retry, retryMin), retryMax)
	r.logTurn(err)
	if err != nil {
		return false
	}
	for _, number := range taken {
		r.bucket(number).held = true
	}
	switch {
	case len(taken) == 0:
	case len(open) == 0:
		r.settle(taken)
	default:
		r.waits.add(taken, open)
	}
	return true
}

// settle notes that nobody is waited for in buckets. The caller holds mu.
func (r *Registrar) settle(buckets []int32) {
	for _, number := range buckets {
		if b := r.buckets[number]; b != nil && b.held {
			b.settled = true
		}
	}
}

// await has read again what a transaction may have changed that looked too early and has ended.
func (r *Registrar) await(ctx context.Context) {
	r.mu.Lock()
	locks, session, waiting := r.locks, r.session, len(r.waits.lists) > 0
	r.mu.Unlock()
	if locks == nil || !waiting {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	snap, err := locks.Snapshot(ctx)
	r.markIn(r.looked(session, snap, err))
}

// looked returns the buckets for which something has ended.
func (r *Registrar) looked(session int, snap Snapshot, err error) []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != session {
		return nil
	}
	r.logTurn(err)
	if err != nil {
		r.waits.delay = min(2*r.waits.delay, lookMax)
		return nil
	}
	again, over := r.waits.look(snap)
	r.settle(over)
	return again
}

// markIn has read what is watched in buckets. It is called without mu.
func (r *Registrar) markIn(buckets []int32) {
	if len(buckets) == 0 {
		return
	}
	r.mu.Lock()
	number := r.number
	r.mu.Unlock()
	chosen := make(map[int32]bool, len(buckets))
	for _, b := range buckets {
		chosen[b] = true
	}
	r.mark(func(key store.Key) bool {
		if key == Beginning {
			return chosen[number]
		}
		return chosen[bucketOf(key)&(number-1)]
	})
}

// giveBack gives back what nobody watches any more, and in a flood everything.
func (r *Registrar) giveBack(ctx context.Context) {
	r.mu.Lock()
	locks, session := r.locks, r.session
	var gone []int32
	for number, b := range r.buckets {
		over := b.watched == 0 && time.Since(b.left) >= lingers
		switch {
		case b.held && (over || r.flooded):
			gone = append(gone, number)
		case over:
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
		r.gave(session, batch, err)
	}
}

// gave notes what giveBack has given back. Where somebody watches again it is taken again.
func (r *Registrar) gave(session int, buckets []int32, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != session {
		return
	}
	r.logTurn(err)
	for _, number := range buckets {
		b := r.buckets[number]
		if err != nil {
			b.left = time.Now() // to be tried again
			continue
		}
		b.held, b.settled = false, false
	}
}
