package pgnotify

import (
	"context"
	"slices"
	"time"

	"auditstream/store"
)

// lockTurn is what a Registrar does at once, in one session.
type lockTurn struct {
	*Registrar
	locks   Locks
	session int
}

// turn returns what is to be taken and what to be given back: in a flood everything.
func (r *Registrar) turn() (t lockTurn, wanted, gone []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.buckets {
		b := &r.buckets[k]
		over := b.watched == 0 && time.Since(b.left) >= lingers
		switch {
		case b.held && (over || r.flooded):
			gone = append(gone, int32(k))
			b.held, b.since = false, 0
		case b.watched > 0 && !b.held && !r.flooded:
			wanted = append(wanted, int32(k))
		}
	}
	return lockTurn{r, r.locks, r.session}, wanted, gone
}

// noted calls f, under the lock, unless the session is another's by now or err says that it refuses.
func (t lockTurn) noted(err error, f func()) bool {
	t.mu.Lock()
	same := t.Registrar.session == t.session
	switch {
	case same && err == nil:
		f()
	case same:
		t.retry, t.look = backedOff(t.retry), backedOff(t.look)
	}
	t.mu.Unlock()
	if same {
		t.logTurn(err)
	}
	return same && err == nil
}

func backedOff(d time.Duration) time.Duration { return min(max(2*d, retryMin), retryMax) }

func (t lockTurn) giveBack(ctx context.Context, gone []int32) {
	for batch := range slices.Chunk(gone, takeBatch) {
		if !t.noted(t.locks.GiveBack(ctx, batch), func() {}) {
			return
		}
	}
}

// take takes buckets, lists who may have looked before, and has them read.
func (t lockTurn) take(ctx context.Context, wanted []int32) {
	for batch := range slices.Chunk(wanted, takeBatch) {
		taken, err := t.locks.Take(ctx, batch)
		var open []uint64
		var next uint64
		if err == nil && len(taken) > 0 {
			open, next, err = t.locks.Open(ctx)
		}
		took := t.noted(err, func() {
			t.retry = backedOff(t.retry)
			for _, k := range taken {
				t.buckets[k].held = true
				if len(open) > 0 {
					t.buckets[k].since = next
				}
			}
			if len(open) > 0 {
				t.open = append(t.open, open...)
				slices.Sort(t.open)
				t.open = slices.Compact(t.open)
				t.look = retryMin
			}
		})
		if !took {
			return
		}
		t.markIn(taken)
	}
}

// await has read again what a transaction may have changed that looked too early and has ended.
func (t lockTurn) await(ctx context.Context) {
	t.mu.Lock()
	waits := len(t.open) > 0
	t.mu.Unlock()
	if !waits {
		return
	}
	open, next, err := t.locks.Open(ctx)
	var again []int32
	t.noted(err, func() { again = t.looked(open, next) })
	t.markIn(again)
}

// looked takes out what has ended, and returns the buckets in which it may have changed something. The caller holds mu.
func (r *Registrar) looked(open []uint64, next uint64) (again []int32) {
	r.look = backedOff(r.look)
	var still, ended []uint64
	for _, xid := range r.open {
		if _, is := slices.BinarySearch(open, xid); is || xid >= next {
			still = append(still, xid)
		} else {
			ended = append(ended, xid)
		}
	}
	r.open = still
	for k := range r.buckets {
		b := &r.buckets[k]
		if len(ended) > 0 && ended[0] < b.since {
			again = append(again, int32(k))
		}
		if len(still) == 0 || still[0] >= b.since {
			b.since = 0
		}
	}
	return again
}

// markIn has read what is watched in buckets. It is called without mu.
func (r *Registrar) markIn(buckets []int32) {
	if len(buckets) == 0 {
		return
	}
	var chosen [maxBuckets + beginnings]bool
	for _, k := range buckets {
		chosen[k] = true
	}
	r.mark(func(key store.Key) bool {
		first, n := bucketsOf(key)
		return slices.Contains(chosen[first:first+n], true)
	})
}
