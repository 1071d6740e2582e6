package pgnotify

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Registry tells the triggers which audits an instance watches: they ring for no others. An instance is a number under which
// the session that listens holds an advisory lock, and dead when nobody holds it.
type Registry interface {
	// Register has committed when it returns, and says which transactions may have looked before: those below Xmax that are
	// in InProgress. Whoever begins later finds the ids. What is registered already stays so.
	Register(ctx context.Context, instance int64, ids []int64) (Snapshot, error)
	// Unregister forgets ids (nil: all) and whatever belongs to dead instances, and says how many are left.
	Unregister(ctx context.Context, instance int64, ids []int64) (left int, err error)
	// Snapshot says which transactions are open.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Snapshot is PostgreSQL's pg_snapshot: every transaction below Xmax that is not in InProgress has ended.
type Snapshot struct {
	Xmax       uint64
	InProgress []uint64 // ascending; of top-level transactions, prepared ones among them
}

// Database is the part of a pgxpool.Pool that Watched needs.
type Database interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Ended reports whether a transaction has ended.
func (s Snapshot) Ended(xid uint64) bool {
	_, running := slices.BinarySearch(s.InProgress, xid)
	return xid < s.Xmax && !running
}

// Watched is the Registry in auditstream.watch, which install makes. It is as safe for concurrent use as DB.
type Watched struct{ DB Database }

var _ Registry = Watched{}

// Register implements [Registry]. The table is unlogged, so the commit waits for no disk.
//
// A snapshot of PostgreSQL's does not say what it takes: its xmax is one more than the newest transaction that has ended
// (GetSnapshotData, procarray.c), and those from there on, which may have looked before the commit, are in no list. So an id is
// drawn: whoever has looked has a smaller one.
func (w Watched) Register(ctx context.Context, instance int64, ids []int64) (Snapshot, error) {
	_, err := w.DB.Exec(ctx, `insert into auditstream.watch (audit_id, instance)
		select id, $2::bigint from unnest($1::bigint[]) as id on conflict do nothing`, ids, instance)
	if err != nil {
		return Snapshot{}, fmt.Errorf("register: %w", err)
	}
	snap, err := w.snapshot(ctx, `select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_xact_id()::text`)
	if err != nil {
		return Snapshot{}, fmt.Errorf("register: %w", err)
	}
	return snap, nil
}

// Unregister implements [Registry].
func (w Watched) Unregister(ctx context.Context, instance int64, ids []int64) (left int, err error) {
	err = w.DB.QueryRow(ctx, `select auditstream.unwatch($1::bigint, $2::bigint[])`, instance, ids).Scan(&left)
	if err != nil {
		return 0, fmt.Errorf("unregister: %w", err)
	}
	return left, nil
}

// Snapshot implements [Registry].
func (w Watched) Snapshot(ctx context.Context) (Snapshot, error) {
	return w.snapshot(ctx, `select pg_catalog.pg_current_snapshot()::text, null`)
}

// snapshot runs a query for a snapshot and, unless it is null, the id up to which transactions count as open that are not in it.
func (w Watched) snapshot(ctx context.Context, query string) (Snapshot, error) {
	var text string
	var upTo *string
	if err := w.DB.QueryRow(ctx, query).Scan(&text, &upTo); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot: %w", err)
	}
	snap, err := parseSnapshot(text)
	if err != nil || upTo == nil {
		return snap, err
	}
	xid, err := strconv.ParseUint(*upTo, 10, 64)
	if err != nil {
		return Snapshot{}, fmt.Errorf("transaction id %q: %w", *upTo, err)
	}
	return snap.extended(xid), nil
}

// extended counts those from Xmax on that are below xid as in progress: a few, drawn since the registration's own.
func (s Snapshot) extended(xid uint64) Snapshot {
	for ; s.Xmax < xid; s.Xmax++ {
		s.InProgress = append(s.InProgress, s.Xmax)
	}
	return s
}

// parseSnapshot reads xmin:xmax:xip,xip,...
func parseSnapshot(text string) (Snapshot, error) {
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return Snapshot{}, fmt.Errorf("snapshot %q: want three fields", text)
	}
	var s Snapshot
	var err error
	s.Xmax, err = strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: %w", text, err)
	}
	for xid := range strings.SplitSeq(fields[2], ",") {
		if xid == "" {
			continue
		}
		n, err := strconv.ParseUint(xid, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("snapshot %q: %w", text, err)
		}
		s.InProgress = append(s.InProgress, n)
	}
	return s, nil
}
