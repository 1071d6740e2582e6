package pgnotify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// lockTimeout bounds one statement of a session that holds locks.
	lockTimeout    = 2 * time.Second
	goodbyeTimeout = time.Second
)

// feed is what the triggers' conditions ask for, as auditstream.feeds says; zero: there are none that ask.
type feed struct{ class, buckets int32 }

// lockSession is a connection that holds locks. Safe for concurrent use.
type lockSession struct {
	mu   sync.Mutex
	conn *pgx.Conn
	last feed // whose locks are held
}

// prove has one notification from the pool come back: through a transaction pooler, where none does, locks would stay with whoever
// gets the connection next. It listens for that long alone.
func (s *lockSession) prove(ctx context.Context, pool Execer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*lockTimeout)
	defer cancel()
	channel := pgx.Identifier{"auditstream_locks_" + strings.ToLower(rand.Text())}
	if _, err := s.conn.Exec(ctx, "listen "+channel.Sanitize()); err != nil {
		return fmt.Errorf("listen once: %w", err)
	}
	if err := notify(ctx, pool, channel[0], ""); err != nil {
		return fmt.Errorf("notify once: %w", err)
	}
	waitCtx, stop := context.WithTimeout(ctx, lockTimeout)
	defer stop()
	if _, err := s.conn.WaitForNotification(waitCtx); err != nil {
		if waitCtx.Err() != nil && ctx.Err() == nil {
			return ErrSilent
		}
		return fmt.Errorf("wait for a notification: %w", err)
	}
	if _, err := s.conn.Exec(ctx, "unlisten "+channel.Sanitize()); err != nil {
		return fmt.Errorf("unlisten: %w", err)
	}
	return nil
}

var errLocksLost = errors.New("the connection that holds the locks was lost")

// ask reads what the triggers ask for.
func (s *lockSession) ask(ctx context.Context) (f feed, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err = s.conn.QueryRow(ctx, `select class, buckets from auditstream.feeds where feed = 'audits'`).Scan(&f.class, &f.buckets)
	if err == nil && (f.buckets < 1 || f.buckets > maxBuckets || f.buckets&(f.buckets-1) != 0) {
		err = fmt.Errorf("auditstream.feeds says %d buckets, which is no power of two up to %d", f.buckets, maxBuckets)
	}
	if err != nil {
		f = feed{}
	}
	if s.conn.IsClosed() {
		return feed{}, errors.Join(errLocksLost, err)
	}
	if f != s.last { // locks of before mean nothing to anybody now
		if _, err := s.conn.Exec(ctx, `select pg_catalog.pg_advisory_unlock_all()`); err != nil {
			return feed{}, errors.Join(errLocksLost, err)
		}
	}
	s.last = f
	return f, err
}

// isServerOf reports that the pool leads to another server than the session by now: after a failover the one before may live on.
func (s *lockSession) isServerOf(ctx context.Context, pool Pool) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	const began = `select (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8::pg_catalog.text`
	var here, there string
	s.mu.Lock()
	err := s.conn.QueryRow(ctx, began).Scan(&here)
	s.mu.Unlock() // the pool may be busy
	if err != nil {
		return errors.Join(errLocksLost, err)
	}
	if err := pool.QueryRow(ctx, began).Scan(&there); err != nil {
		return nil // which says nothing about the session
	}
	if here != there {
		return errors.New("the session that holds the locks is on another server than the database")
	}
	return nil
}

// check finds a connection that was closed.
func (s *lockSession) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.IsClosed() {
		return errLocksLost
	}
	//lint:ignore SA1019 it costs no round trip; what it does not see the next question does
	return s.conn.PgConn().CheckConn()
}

// close ends the connection, and with it the locks.
func (s *lockSession) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// end is close. The caller holds mu.
func (s *lockSession) end() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// locks are the Locks of a feed.
type locks struct {
	*lockSession
	feed
}

// do runs f, which must keep to its context. After an error nobody knows which locks are held, as a statement that fails gives none
// back: they end with the session.
func (l locks) do(ctx context.Context, f func(ctx context.Context) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != l.feed {
		return errors.New("the triggers ask for other locks by now")
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err := f(ctx)
	if err != nil {
		l.end()
	}
	return err
}

// numbers are the second numbers of buckets' locks. Buckets that differ in their upper bits alone share one.
func (l locks) numbers(buckets []int32) []int32 {
	numbers := make([]int32, len(buckets))
	for k, b := range buckets {
		if numbers[k] = b & (l.buckets - 1); b >= maxBuckets {
			numbers[k] = l.buckets + b - maxBuckets
		}
	}
	return numbers
}

var _ Locks = locks{}

// Take implements [Locks]. It waits for nobody: a lock that a writer has for the moment of a look is left out.
func (l locks) Take(ctx context.Context, buckets []int32) (taken []int32, err error) {
	err = l.do(ctx, func(ctx context.Context) error {
		rows, err := l.conn.Query(ctx, `select b.k - 1 from pg_catalog.unnest($1::int[]) with ordinality as b(number, k)
			where pg_catalog.pg_try_advisory_lock_shared($2::int, b.number)`, l.numbers(buckets), l.class)
		if err != nil {
			return err
		}
		taken, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b int32, err error) {
			var k int64
			err = row.Scan(&k)
			return buckets[k], err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take locks: %w", err)
	}
	return taken, nil
}

// GiveBack implements [Locks].
func (l locks) GiveBack(ctx context.Context, buckets []int32) error {
	err := l.do(ctx, func(ctx context.Context) error {
		_, err := l.conn.Exec(ctx, `select pg_catalog.count(pg_catalog.pg_advisory_unlock_shared($2::int, b)) from pg_catalog.unnest($1::int[]) b`, l.numbers(buckets), l.class)
		return err
	})
	if err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

// Open implements [Locks].
//
// A snapshot of PostgreSQL's does not say what it takes: its xmax is one more than the newest transaction that has ended
// (GetSnapshotData, procarray.c), and those from there on, which may have looked already, are in no list. age counts them,
// without drawing an id, which would be a write.
func (l locks) Open(ctx context.Context) (open []uint64, next uint64, err error) {
	var listed []int64
	var newer int32
	err = l.do(ctx, func(ctx context.Context) error {
		return l.conn.QueryRow(ctx, `select array(select x::text::bigint from pg_catalog.pg_snapshot_xip(s) x order by 1),
			pg_catalog.pg_snapshot_xmax(s)::text::bigint, pg_catalog.age(pg_catalog.pg_snapshot_xmax(s)::xid)
			from pg_catalog.pg_current_snapshot() s`).Scan(&listed, &next, &newer)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list open transactions: %w", err)
	}
	for _, xid := range listed {
		open = append(open, uint64(xid))
	}
	for range max(newer, 0) {
		open = append(open, next)
		next++
	}
	return open, next, nil
}
