package pgnotify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// locks is the session in which an instance holds the locks by which writers see that somebody watches; see
// docs/watch-as-locks.md. They end with it. Those from maxBuckets on are Beginning's. A bucket may be taken more than once, and is
// then given back as often. After an error the session is over: nobody knows which locks are held, as a statement that fails gives
// none back. Each method takes seconds at most.
type locks interface {
	// ask reads what the triggers ask for, or why that is not known. Where it is something else than before, all is given back.
	ask(ctx context.Context) (f lockSpace, unknown, err error)
	// take takes buckets and returns those that it got; a writer may be looking at the others at this moment.
	take(ctx context.Context, buckets []int32) (taken []int32, err error)
	giveBack(ctx context.Context, buckets []int32) error
	// open says which transactions have an id and have not ended, in a statement of its own: those in open, which is ascending, and all
	// from next on.
	open(ctx context.Context) (open []uint64, next uint64, err error)
	close()
}

const (
	// lockTimeout bounds one statement of a session that holds locks.
	lockTimeout = 2 * time.Second
	// poolTimeout bounds a question to the pool, which may be busy while buckets wait to be taken.
	poolTimeout    = lockTimeout / 4
	goodbyeTimeout = time.Second
)

// lockSpace is what the conditions of all feeds' triggers ask for, as auditstream.feeds says; zero: there are none that ask.
type lockSpace struct{ class, buckets int32 }

// lockSession is a connection that holds locks.
type lockSession struct {
	conn      *pgx.Conn
	pool      Pool
	lockSpace // whose locks are held
}

// connectLocks opens a connection and has one notification from the pool come back: through a transaction pooler, where none does,
// locks would stay with whoever gets the connection next. It listens for that long alone.
func connectLocks(ctx context.Context, cfg *pgx.ConnConfig, pool Pool) (s *lockSession, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout(cfg)+2*lockTimeout)
	defer cancel()
	conn, err := connectIdle(ctx, cfg)
	if err != nil {
		return nil, err
	}
	open := &lockSession{conn: conn, pool: pool}
	defer func() {
		if err != nil {
			open.close()
		}
	}()
	channel := pgx.Identifier{"auditstream_locks_" + strings.ToLower(rand.Text())}
	if _, err := conn.Exec(ctx, "listen "+channel.Sanitize()); err != nil {
		return nil, fmt.Errorf("listen once: %w", err)
	}
	if err := notify(ctx, pool, channel[0], ""); err != nil {
		return nil, fmt.Errorf("notify once: %w", err)
	}
	waitCtx, stop := context.WithTimeout(ctx, lockTimeout)
	defer stop()
	if _, err := conn.WaitForNotification(waitCtx); err != nil {
		if waitCtx.Err() != nil && ctx.Err() == nil {
			return nil, ErrSilent
		}
		return nil, fmt.Errorf("wait for a notification: %w", err)
	}
	if _, err := conn.Exec(ctx, "unlisten *"); err != nil {
		return nil, fmt.Errorf("unlisten: %w", err)
	}
	return open, nil
}

// ask also finds that the pool leads to another server by now: after a failover the one before may live on.
func (s *lockSession) ask(ctx context.Context) (f lockSpace, unknown, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	unknown = s.conn.QueryRow(ctx, `select class, buckets from auditstream.feeds where feed = 'audits'`).Scan(&f.class, &f.buckets)
	if unknown == nil && (f.buckets < 1 || f.buckets > maxBuckets || f.buckets&(f.buckets-1) != 0) {
		unknown = fmt.Errorf("auditstream.feeds says %d buckets, which is no power of two up to %d", f.buckets, maxBuckets)
	}
	if unknown != nil {
		f = lockSpace{}
	}
	if f != s.lockSpace { // locks of before mean nothing to anybody now
		s.lockSpace = f
		if _, err := s.conn.Exec(ctx, `select pg_catalog.pg_advisory_unlock_all()`); err != nil {
			return f, unknown, errors.Join(unknown, err)
		}
	}
	const began = `select (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8::pg_catalog.text`
	var here, there string
	if err := s.conn.QueryRow(ctx, began).Scan(&here); err != nil {
		return f, unknown, errors.Join(unknown, err)
	}
	poolCtx, stop := context.WithTimeout(ctx, poolTimeout)
	defer stop()
	// That the pool does not answer says nothing about the session.
	if err := s.pool.QueryRow(poolCtx, began).Scan(&there); err == nil && here != there {
		return f, unknown, errors.New("the session that holds the locks is on another server than the database")
	}
	return f, unknown, nil
}

// close ends the locks with the connection.
func (s *lockSession) close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// numbers are the second numbers of buckets' locks. Buckets that differ in their upper bits alone share one.
func (s *lockSession) numbers(buckets []int32) []int32 {
	numbers := make([]int32, len(buckets))
	for k, b := range buckets {
		if numbers[k] = b & (s.buckets - 1); b >= maxBuckets {
			numbers[k] = s.buckets + b - maxBuckets
		}
	}
	return numbers
}

func (s *lockSession) take(ctx context.Context, buckets []int32) (taken []int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	rows, _ := s.conn.Query(ctx, `select l.bucket from rows from (pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::int[])) as l(bucket, number)
		where pg_catalog.pg_try_advisory_lock_shared($3::int, l.number)`, buckets, s.numbers(buckets), s.class)
	if taken, err = pgx.CollectRows(rows, pgx.RowTo[int32]); err != nil { // Query's, too
		return nil, fmt.Errorf("take locks: %w", err)
	}
	return taken, nil
}

func (s *lockSession) giveBack(ctx context.Context, buckets []int32) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if _, err := s.conn.Exec(ctx, `select pg_catalog.count(pg_catalog.pg_advisory_unlock_shared($2::int, b)) from pg_catalog.unnest($1::int[]) b`, s.numbers(buckets), s.class); err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

// A snapshot of PostgreSQL's does not say what it takes: its xmax is one more than the newest transaction that has ended
// (GetSnapshotData, procarray.c), and those from there on, which may have looked already, are in no list. age counts them,
// without drawing an id, which would be a write.
func (s *lockSession) open(ctx context.Context) (open []uint64, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err = s.conn.QueryRow(ctx, `with s as materialized ( -- age is asked once
			select s, pg_catalog.pg_snapshot_xmax(s)::text::bigint as xmax, greatest(pg_catalog.age(pg_catalog.pg_snapshot_xmax(s)::xid), 0) as newer
			from pg_catalog.pg_current_snapshot() s)
		select array(select x::text::bigint from pg_catalog.pg_snapshot_xip(s) x union all
			select xmax + n from pg_catalog.generate_series(0, newer - 1) n order by 1), xmax + newer from s`).Scan(&open, &next)
	if err != nil {
		return nil, 0, fmt.Errorf("list open transactions: %w", err)
	}
	return open, next, nil
}
