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

// locks is a session that holds the advisory locks by which writers see that somebody watches: see docs/watch-as-locks.md. PostgreSQL releases
// them when the session ends. Buckets from maxBuckets on belong to NewRows. A lock that was acquired twice must be released twice. After
// an error the session must be closed, because a statement that fails keeps the locks that it had acquired, and nobody knows which. No
// method takes longer than a few seconds.
type locks interface {
	// readLockSpace reads which locks the triggers ask for; unknown says why that cannot be read. When the result differs from the last
	// one, it releases all locks.
	readLockSpace(ctx context.Context) (space lockSpace, unknown, err error)
	// acquire tries the locks of buckets, and returns the buckets whose lock it got. A writer may be trying one of the others at this moment.
	acquire(ctx context.Context, buckets []int32) (taken []int32, err error)
	release(ctx context.Context, buckets []int32) error
	// openTransactions returns the transactions that have an id and have not ended, ascending, and the next id. It must be a statement
	// of its own after acquire.
	openTransactions(ctx context.Context) (open []uint64, next uint64, err error)
	close()
}

const (
	// lockTimeout bounds one statement of the session.
	lockTimeout = 2 * time.Second
	// poolTimeout bounds the query to the pool. It is shorter because the pool may be busy while locks wait to be acquired.
	poolTimeout  = lockTimeout / 4
	closeTimeout = time.Second
)

// lockSpace says which locks the triggers of all feeds ask for, as stored in auditstream.feeds: the first number of each lock, and the number
// of buckets. The zero value means that no trigger asks.
type lockSpace struct{ class, buckets int32 }

// lockSession implements locks with a connection.
type lockSession struct {
	conn      *pgx.Conn
	pool      Pool
	lockSpace // that of the locks it holds
}

// connectLocks opens a connection, and proves with one notification from the pool that the connection is ours alone. Through a transaction
// pooler the notification does not arrive, and locks would stay with the next client of the connection. It listens only until then.
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

// readLockSpace implements locks. It also fails when the pool reaches another server, because after a failover the old primary may live on.
func (s *lockSession) readLockSpace(ctx context.Context) (space lockSpace, unknown, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	unknown = s.conn.QueryRow(ctx, `select class, buckets from auditstream.feeds where feed = 'audits'`).Scan(&space.class, &space.buckets)
	if unknown == nil && (space.buckets < 1 || space.buckets > maxBuckets || space.buckets&(space.buckets-1) != 0) {
		unknown = fmt.Errorf("auditstream.feeds has %d buckets: want a power of two up to %d", space.buckets, maxBuckets)
	}
	if unknown != nil {
		space = lockSpace{}
	}
	if space != s.lockSpace { // no trigger asks for the old locks any more
		s.lockSpace = space
		if _, err := s.conn.Exec(ctx, `select pg_catalog.pg_advisory_unlock_all()`); err != nil {
			return space, unknown, errors.Join(unknown, err)
		}
	}
	const began = `select (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8::pg_catalog.text`
	var here, there string
	if err := s.conn.QueryRow(ctx, began).Scan(&here); err != nil {
		return space, unknown, errors.Join(unknown, err)
	}
	poolCtx, stop := context.WithTimeout(ctx, poolTimeout)
	defer stop()
	// When the pool does not answer, that proves nothing about this session.
	if err := s.pool.QueryRow(poolCtx, began).Scan(&there); err == nil && here != there {
		return space, unknown, errors.New("the session that holds the locks is on another server than the database: " +
			"DATABASE_LISTEN_URL must lead to the same server as DATABASE_URL")
	}
	return space, unknown, nil
}

// close closes the connection, which releases the locks.
func (s *lockSession) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// lockNumbers returns the second numbers of the locks of buckets. Buckets that differ only in their upper bits share a lock.
func (s *lockSession) lockNumbers(buckets []int32) []int32 {
	numbers := make([]int32, len(buckets))
	for k, b := range buckets {
		if numbers[k] = b & (s.buckets - 1); b >= maxBuckets {
			numbers[k] = s.buckets + b - maxBuckets
		}
	}
	return numbers
}

func (s *lockSession) acquire(ctx context.Context, buckets []int32) (taken []int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	rows, _ := s.conn.Query(ctx, `select l.bucket from rows from (pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::int[])) as l(bucket, number)
		where pg_catalog.pg_try_advisory_lock_shared($3::int, l.number)`, buckets, s.lockNumbers(buckets), s.class)
	if taken, err = pgx.CollectRows(rows, pgx.RowTo[int32]); err != nil { // also the error of Query
		return nil, fmt.Errorf("acquire locks: %w", err)
	}
	return taken, nil
}

func (s *lockSession) release(ctx context.Context, buckets []int32) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	const unlock = `select pg_catalog.count(pg_catalog.pg_advisory_unlock_shared($2::int, b)) from pg_catalog.unnest($1::int[]) b`
	if _, err := s.conn.Exec(ctx, unlock, s.lockNumbers(buckets), s.class); err != nil {
		return fmt.Errorf("release locks: %w", err)
	}
	return nil
}

// openTransactions implements locks. A snapshot alone is not enough: its xmax is one more than the newest transaction that has ended
// (GetSnapshotData, procarray.c), so it does not list newer ones, which may already have asked for a lock. age counts them without
// drawing a transaction id, which would be a write.
func (s *lockSession) openTransactions(ctx context.Context) (open []uint64, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err = s.conn.QueryRow(ctx, `with s as materialized ( -- so that age is computed once
			select s, pg_catalog.pg_snapshot_xmax(s)::text::bigint as xmax, greatest(pg_catalog.age(pg_catalog.pg_snapshot_xmax(s)::xid), 0) as newer
			from pg_catalog.pg_current_snapshot() s)
		select array(select x::text::bigint from pg_catalog.pg_snapshot_xip(s) x union all
			select xmax + n from pg_catalog.generate_series(0, newer - 1) n order by 1), xmax + newer from s`).Scan(&open, &next)
	if err != nil {
		return nil, 0, fmt.Errorf("list open transactions: %w", err)
	}
	return open, next, nil
}
