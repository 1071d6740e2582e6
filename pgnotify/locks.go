package pgnotify

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// sessionLocks are Locks in the session that listens, so that they end when it does.
type sessionLocks struct {
	class int32 // of the feed, as auditstream.feeds says
	// do runs f on the session's connection, between two notifications. An error of f's is the session's end.
	do func(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error
}

var _ Locks = sessionLocks{}

// Take implements [Locks]. It waits for nobody: a lock that a writer has for the moment of a look is left out.
func (l sessionLocks) Take(ctx context.Context, buckets []int32) (taken []int32, open Snapshot, err error) {
	err = l.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `select b from pg_catalog.unnest($1::int[]) b where pg_catalog.pg_try_advisory_lock_shared($2::int, b)`, buckets, l.class)
		if err != nil {
			return err
		}
		taken, err = pgx.CollectRows(rows, pgx.RowTo[int32])
		if err != nil || len(taken) == 0 {
			return err
		}
		open, err = snapshot(ctx, conn)
		return err
	})
	if err != nil {
		return nil, Snapshot{}, fmt.Errorf("take locks: %w", err)
	}
	return taken, open, nil
}

// GiveBack implements [Locks].
func (l sessionLocks) GiveBack(ctx context.Context, buckets []int32) error {
	err := l.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `select pg_catalog.count(pg_catalog.pg_advisory_unlock_shared($2::int, b)) from pg_catalog.unnest($1::int[]) b`, buckets, l.class)
		return err
	})
	if err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

// Snapshot implements [Locks].
func (l sessionLocks) Snapshot(ctx context.Context) (open Snapshot, err error) {
	err = l.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		open, err = snapshot(ctx, conn)
		return err
	})
	return open, err
}

// snapshot lists the transactions that have an id and have not ended.
//
// A snapshot of PostgreSQL's does not say what it takes: its xmax is one more than the newest transaction that has ended
// (GetSnapshotData, procarray.c), and those from there on, which may have looked already, are in no list. age counts them,
// without drawing an id, which would be a write.
func snapshot(ctx context.Context, conn *pgx.Conn) (Snapshot, error) {
	var text string
	var newer int32
	err := conn.QueryRow(ctx, `select s::text, pg_catalog.age(pg_catalog.pg_snapshot_xmax(s)::xid) from pg_catalog.pg_current_snapshot() s`).Scan(&text, &newer)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list open transactions: %w", err)
	}
	snap, err := parseSnapshot(text)
	if err != nil {
		return Snapshot{}, err
	}
	return snap.extended(snap.Xmax + uint64(max(newer, 0))), nil
}
