package pgnotify

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
)

const (
	// takeBatch is how many buckets one statement takes or gives back.
	takeBatch = 1024
	// A bucket that could not be taken is tried again after retryMin, then less and less often; so are transactions looked for that are
	// waited for.
	retryMin, retryMax = 2 * time.Millisecond, time.Second
	// lingers is for how long the lock of a bucket is kept in which nobody watches any more, so that a page that is reloaded finds it.
	lingers = 2 * time.Second
	// lookInterval is the time between questions what the triggers ask for, which also find a connection that is dead.
	lookInterval = 4 * time.Second
	// noSessionRest is the time between attempts where a pooler is in the way.
	noSessionRest = time.Minute
)

// Beginning stands for whatever begins, where a key is asked for: somebody watches all of an owner's.
const Beginning store.Key = ""

// Registrar tells writers what somebody watches: it holds the locks of the buckets that it is in, waits for whoever looked before
// they were held, and has what is in them read. It keeps a session for them that does not LISTEN, so that it costs writers nothing.
// Its feeds are [Announcer]s. All methods are safe for concurrent use, and none but Run blocks.
type Registrar struct {
	connect func(ctx context.Context) (locks, error)
	logger  *slog.Logger
	wake    Bell // there is something to do
	again   Bell // ask at once what the triggers ask for
	looks   Throttle
	held    atomic.Bool
	tells   atomic.Bool

	mu      sync.Mutex
	feeds   []*FeedAnnouncer
	buckets [maxBuckets + beginnings]bucket
	keys    int           // that somebody watches
	open    []uint64      // transactions that are waited for, ascending
	pause   time.Duration // until what could not be taken is tried again, and whoever is waited for looked for
}

// bucket is one of those into which the keys of all feeds are put.
type bucket struct {
	watched int // keys that somebody watches, of feeds that are not flooded
	held    bool
	since   uint64    // transactions from this one on look late enough, those before that are waited for did not; 0: none is waited for
	changed time.Time // when somebody came or left
}

// NewRegistrar returns a Registrar that does nothing until Run. conn and pool are NewPostgres's.
func NewRegistrar(conn *pgx.ConnConfig, pool Pool, logger *slog.Logger) *Registrar {
	conn = listenConfig(conn, "auditstream locks")
	connect := func(ctx context.Context) (locks, error) { return connectLocks(ctx, conn, pool) }
	return &Registrar{connect: connect, logger: logger, wake: NewBell(), again: NewBell()}
}

// Tells reports whether writers are told what is watched.
func (r *Registrar) Tells() bool { return r.tells.Load() }

// Held reports whether there is a session of which it is known that the connection keeps it.
func (r *Registrar) Held() bool { return r.held.Load() }

// Look has asked at once, once a second at most, what the triggers ask for, which an install may have changed, and whether the
// connection lives.
func (r *Registrar) Look() { r.looks.Do(r.again.Ring) }

func (r *Registrar) watches() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys > 0
}

// Unheld returns in how many buckets somebody watches without that writers know, those of a flooded feed not counted.
func (r *Registrar) Unheld() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.buckets {
		if b := &r.buckets[k]; b.watched > 0 && !b.held {
			n++
		}
	}
	return n
}

// Run takes and gives back until ctx is done, and returns nil; a session that cannot be had is tried again for ever. It must run exactly
// once.
func (r *Registrar) Run(ctx context.Context) error {
	const cannot = "the triggers cannot learn what is watched, trying again; unless they always notify, the safety net finds changes. DATABASE_LISTEN_URL must be a direct connection to the primary"
	return connection{session: r.session, texts: Texts{Lost: cannot, Mute: cannot}, logger: r.logger, rest: noSessionRest, hurry: r.again}.run(ctx)
}

// session is the life of one connection. It is proven when it could take what was wanted.
func (r *Registrar) session(ctx context.Context) (proven bool, err error) {
	l, err := r.connect(ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	r.held.Store(true)
	defer r.held.Store(false)
	defer r.tells.Store(false)
	defer r.forget()
	var looked time.Time
	for told := (lockSpace{buckets: -1}); ; proven = true {
		// While nobody watches nothing is asked: the database may be one that sleeps.
		if looked.IsZero() || time.Since(looked) >= lookInterval && r.watches() {
			f, unknown, err := l.ask(ctx)
			if err != nil {
				return proven, err
			}
			if f != told {
				r.forget()
				r.tells.Store(unknown == nil)
			}
			if f != told && unknown != nil {
				r.logger.Warn("the triggers cannot learn what is watched; unless they always notify, the safety net finds changes. Run auditstream doctor", "error", unknown)
			}
			looked, told = time.Now(), f
		}
		next := lookInterval
		if r.Tells() {
			if next, err = r.turn(ctx, l); err != nil {
				return proven, err
			}
			if !proven {
				r.logger.Info("telling the triggers what is watched")
			}
		}
		select {
		case <-ctx.Done():
			return proven, nil
		case <-r.again:
			looked = time.Time{}
		case <-r.wake:
		case <-time.After(next):
		}
	}
}

// forget notes that no lock is held.
func (r *Registrar) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open, r.pause = nil, 0
	for k := range r.buckets {
		r.buckets[k].held, r.buckets[k].since = false, 0
	}
}

// turn gives back, takes, and looks who has ended. It returns how long there is nothing to do unless somebody rings.
func (r *Registrar) turn(ctx context.Context, l locks) (next time.Duration, err error) {
	wanted, gone, waits, next := r.due()
	for batch := range slices.Chunk(gone, takeBatch) {
		if err := l.giveBack(ctx, batch); err != nil {
			return 0, err
		}
	}
	for batch := range slices.Chunk(wanted, takeBatch) {
		taken, err := l.take(ctx, batch)
		if err != nil {
			return 0, err
		}
		if err := r.settle(ctx, l, taken); err != nil {
			return 0, err
		}
	}
	if waits && len(wanted) == 0 {
		err = r.settle(ctx, l, nil)
	}
	return next, err
}

// due returns what is to be taken and to be given back, whether transactions are waited for, and turn's next.
func (r *Registrar) due() (wanted, gone []int32, waits bool, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = lookInterval
	for k := range r.buckets {
		b := &r.buckets[k]
		lingering := lingers - time.Since(b.changed)
		switch {
		case b.held && b.watched == 0 && lingering <= 0:
			gone = append(gone, int32(k))
			b.held, b.since = false, 0
		case b.held && b.watched == 0:
			next = min(next, lingering)
		case b.watched > 0 && !b.held:
			wanted = append(wanted, int32(k))
		}
	}
	if waits = len(r.open) > 0; waits || len(wanted) > 0 {
		r.pause = min(max(2*r.pause, retryMin), retryMax)
		next = min(next, r.pause)
	}
	return wanted, gone, waits, next
}

// settle has read what is in buckets that were taken, and again what a transaction may have changed that looked too early and has ended.
func (r *Registrar) settle(ctx context.Context, l locks, taken []int32) error {
	open, next, err := l.open(ctx)
	if err != nil {
		return err
	}
	var chosen [maxBuckets + beginnings]bool
	for _, k := range append(taken, r.ended(taken, open, next)...) {
		chosen[k] = true
	}
	if slices.Contains(chosen[:], true) {
		r.mu.Lock()
		feeds := slices.Clone(r.feeds)
		r.mu.Unlock()
		for _, f := range feeds {
			f.mark(func(key store.Key) bool { return slices.Contains(bucketsOf(chosen[:], f.feed, key), true) })
		}
	}
	return nil
}

// ended notes that buckets are held and who is open, and returns the buckets in which somebody who has ended may have changed
// something.
func (r *Registrar) ended(taken []int32, open []uint64, next uint64) (buckets []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := next // of those who have ended
	r.open = slices.DeleteFunc(r.open, func(xid uint64) bool {
		_, is := slices.BinarySearch(open, xid)
		if !is {
			first = min(first, xid)
		}
		return !is
	})
	if len(taken) > 0 {
		r.open = open
	}
	for _, k := range taken {
		r.buckets[k].held, r.buckets[k].since = true, next
	}
	for k := range r.buckets {
		b := &r.buckets[k]
		if first < b.since {
			buckets = append(buckets, int32(k))
		}
		if len(r.open) == 0 || r.open[0] >= b.since {
			b.since = 0
		}
	}
	return buckets
}
