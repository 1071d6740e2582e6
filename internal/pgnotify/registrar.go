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
	// lockBatch is how many buckets' locks one statement acquires or releases. Larger means that one statement takes longer, up to its
	// time-out.
	lockBatch = 1024
	// A lock that was not free is retried after retryMin, then after twice the time, up to retryMax. The open transactions that we wait
	// for are listed again at the same pace.
	retryMin, retryMax = 2 * time.Millisecond, time.Second
	// lockLinger is how long a lock is kept after the last watcher of its bucket left, so that a page that is reloaded finds it held.
	lockLinger = 2 * time.Second
	// checkInterval is the time between two checks of which locks the triggers ask for. A check also finds a dead connection.
	checkInterval = 4 * time.Second
)

// NewRows stands for the rows that do not exist yet, where a key is expected. It is wanted while somebody watches all rows of an owner.
const NewRows store.Key = ""

// Registrar makes writers notify of what somebody watches. It holds the locks of the buckets that contain watched keys, waits for the
// transactions that may have asked for a lock before it was held, and marks the keys of these buckets for reading: see
// docs/watch-as-locks.md. Its session does not LISTEN, so that it delays no writer. [Registrar.Feed] makes its [Announcer]s. All methods
// are safe for concurrent use, and only Run blocks.
type Registrar struct {
	connect       func(ctx context.Context) (locks, error)
	logger        *slog.Logger
	wake          Bell // there is something to do
	checkBell     Bell // check at once which locks the triggers ask for
	checkThrottle Throttle
	held          atomic.Bool // there is a session
	tells         atomic.Bool // and the triggers ask for its locks

	mu          sync.Mutex // guards the fields below
	feeds       []*FeedAnnouncer
	buckets     [maxBuckets + newRowBuckets]bucket
	keys        int           // how many keys are watched
	openWriters []uint64      // transactions whose end we wait for, ascending
	retryPause  time.Duration // until locks are tried again and openWriters are listed again
}

// bucket is one bucket of the keys of all feeds.
type bucket struct {
	watched int // watched keys in it, without those of flooded feeds
	held    bool
	// waitBelow is the first transaction that began after the lock was held. Earlier ones may have asked for the lock before: when one
	// of them ends, the bucket is read again. 0 means that all of them have ended.
	waitBelow uint64
	changed   time.Time // when a watcher last came or left
}

// NewRegistrar returns a Registrar that does nothing until Run. conn and pool are the same as for NewPostgres.
func NewRegistrar(conn *pgx.ConnConfig, pool Pool, logger *slog.Logger) *Registrar {
	conn = listenConfig(conn, "auditstream locks")
	connect := func(ctx context.Context) (locks, error) { return connectLocks(ctx, conn, pool) }
	return &Registrar{connect: connect, logger: logger, wake: NewBell(), checkBell: NewBell()}
}

// Tells reports whether the triggers learn what is watched.
func (r *Registrar) Tells() bool { return r.tells.Load() }

// Held reports whether there is a session, on a connection that no pooler shares.
func (r *Registrar) Held() bool { return r.held.Load() }

// Look makes the registrar check, once a second at most, which locks the triggers ask for, because an install may have changed them, and
// whether the connection lives.
func (r *Registrar) Look() { r.checkThrottle.Do(r.checkBell.Ring) }

func (r *Registrar) anyWatched() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys > 0
}

// Unheld returns the number of buckets with watched keys whose lock is not held, so that writers do not notify. Keys of flooded feeds do not
// count.
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

// Run acquires and releases locks until ctx is done, and returns nil. It retries a lost session for ever. Call it exactly once.
func (r *Registrar) Run(ctx context.Context) error {
	const cannot = "the triggers cannot learn what is watched, trying again; unless they always notify, the safety net finds changes. " +
		"DATABASE_LISTEN_URL must be a direct connection to the primary"
	return connection{session: r.session, texts: Texts{Lost: cannot, Mute: cannot}, logger: r.logger, retryBell: r.checkBell}.run(ctx)
}

// session uses one connection until it breaks or ctx is done. It is proven after the first step, in which it could acquire what was wanted.
func (r *Registrar) session(ctx context.Context) (proven bool, err error) {
	l, err := r.connect(ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	r.held.Store(true)
	defer r.held.Store(false)
	defer r.tells.Store(false)
	defer r.forgetLocks()
	var lastCheck time.Time
	for lastSpace := (lockSpace{buckets: -1}); ; proven = true {
		// Without watchers no query is sent: the database may be one that sleeps without queries.
		if lastCheck.IsZero() || time.Since(lastCheck) >= checkInterval && r.anyWatched() {
			space, unknown, err := l.readLockSpace(ctx)
			if err != nil {
				return proven, err
			}
			if space != lastSpace {
				r.forgetLocks()
				r.tells.Store(unknown == nil)
			}
			if space != lastSpace && unknown != nil {
				r.logger.Warn("the triggers cannot learn what is watched; unless they always notify, the safety net finds changes. Run auditstream doctor",
					"error", unknown)
			}
			lastCheck, lastSpace = time.Now(), space
		}
		next := checkInterval
		if r.Tells() {
			if next, err = r.step(ctx, l); err != nil {
				return proven, err
			}
			if !proven {
				r.logger.Info("telling the triggers what is watched")
			}
		}
		select {
		case <-ctx.Done():
			return proven, nil
		case <-r.checkBell:
			lastCheck = time.Time{}
		case <-r.wake:
		case <-time.After(next):
		}
	}
}

// forgetLocks notes that no lock is held any more.
func (r *Registrar) forgetLocks() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.openWriters, r.retryPause = nil, 0
	for k := range r.buckets {
		r.buckets[k].held, r.buckets[k].waitBelow = false, 0
	}
}

// step releases and acquires locks, and reads the buckets of transactions that have ended. It returns when the next step is due.
func (r *Registrar) step(ctx context.Context, l locks) (next time.Duration, err error) {
	wanted, gone, waits, next := r.plan()
	for batch := range slices.Chunk(gone, lockBatch) {
		if err := l.release(ctx, batch); err != nil {
			return 0, err
		}
	}
	for batch := range slices.Chunk(wanted, lockBatch) {
		taken, err := l.acquire(ctx, batch)
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

// plan returns the buckets whose locks to acquire and to release, whether transactions are waited for, and when the next step is due.
func (r *Registrar) plan() (wanted, gone []int32, waits bool, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = checkInterval
	now := time.Now() // once: asking the clock for each of thousands of buckets was 40 % of what the server does while viewers come and go
	for k := range r.buckets {
		b := &r.buckets[k]
		switch {
		case b.held && b.watched == 0:
			if lingering := lockLinger - now.Sub(b.changed); lingering > 0 {
				next = min(next, lingering)
				continue
			}
			gone = append(gone, int32(k))
			b.held, b.waitBelow = false, 0
		case b.watched > 0 && !b.held:
			wanted = append(wanted, int32(k))
		}
	}
	if waits = len(r.openWriters) > 0; waits || len(wanted) > 0 {
		r.retryPause = min(max(2*r.retryPause, retryMin), retryMax)
		next = min(next, r.retryPause)
	}
	return wanted, gone, waits, next
}

// settle marks the keys of the buckets whose locks were just acquired, and those of the buckets in which a transaction that has ended may
// have changed something without a notification.
func (r *Registrar) settle(ctx context.Context, l locks, taken []int32) error {
	open, next, err := l.openTransactions(ctx)
	if err != nil {
		return err
	}
	var chosen [maxBuckets + newRowBuckets]bool
	for _, k := range append(taken, r.noteWriters(taken, open, next)...) {
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

// noteWriters notes that the locks of taken are held and which transactions are open. It returns the buckets in which a transaction that
// has ended may have changed something without a notification.
func (r *Registrar) noteWriters(taken []int32, open []uint64, next uint64) (buckets []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := next // the first transaction that has ended
	r.openWriters = slices.DeleteFunc(r.openWriters, func(xid uint64) bool {
		_, is := slices.BinarySearch(open, xid)
		if !is {
			first = min(first, xid)
		}
		return !is
	})
	if len(taken) > 0 {
		r.openWriters = open
	}
	for _, k := range taken {
		r.buckets[k].held, r.buckets[k].waitBelow = true, next
	}
	for k := range r.buckets {
		b := &r.buckets[k]
		if first < b.waitBelow {
			buckets = append(buckets, int32(k))
		}
		if len(r.openWriters) == 0 || r.openWriters[0] >= b.waitBelow {
			b.waitBelow = 0
		}
	}
	return buckets
}
