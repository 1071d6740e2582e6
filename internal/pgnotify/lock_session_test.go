package pgnotify

import (
	"slices"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

func locksOf(conn *pgx.Conn) *lockSession {
	return &lockSession{conn: conn, lockSpace: lockSpace{class: 77, buckets: maxBuckets}}
}

func TestLocksAreSharedAndGivenBack(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	one, two := locksOf(pgtest.Connect(t, dsn)), locksOf(pgtest.Connect(t, dsn))
	writer := pgtest.Connect(t, dsn)
	free := func(bucket int32) (free bool) {
		t.Helper()
		testkit.NoError(t, writer.QueryRow(t.Context(), `select case when pg_try_advisory_lock(77, $1::int) then pg_advisory_unlock(77, $1::int) else false end`, bucket).Scan(&free))
		return free
	}
	for _, l := range []*lockSession{one, two} {
		if taken, err := l.acquire(t.Context(), []int32{1, 2, 3}); err != nil || len(taken) != 3 {
			t.Fatalf("%v, %v, want all three", taken, err)
		}
	}
	if free(2) || !free(4) {
		t.Error("a writer sees what is not so")
	}
	if err := one.release(t.Context(), []int32{2, 3}); err != nil || free(2) {
		t.Errorf("%v; the other instance watches still", err)
	}
	if err := two.release(t.Context(), []int32{2}); err != nil || !free(2) || free(3) {
		t.Errorf("%v; nobody watches 2, somebody 3", err)
	}
	if _, err := writer.Exec(t.Context(), `select pg_advisory_lock(77, 9)`); err != nil {
		t.Fatal(err)
	}
	if taken, err := one.acquire(t.Context(), []int32{8, 9, 10}); err != nil || !slices.Equal(taken, []int32{8, 10}) {
		t.Errorf("%v, %v, want those that nobody has", taken, err)
	}
	if taken, err := one.acquire(t.Context(), []int32{9}); err != nil || len(taken) > 0 {
		t.Errorf("%v, %v, want nothing", taken, err)
	}
}

// Every transaction that has an id and has not ended is listed, also the newest.
func TestOpenTransactionsAreListed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	l := locksOf(pgtest.Connect(t, dsn))
	var open []uint64
	var writers []*pgx.Conn
	for range 3 {
		w := pgtest.Connect(t, dsn)
		var xid uint64
		if _, err := w.Exec(t.Context(), `begin`); err != nil {
			t.Fatal(err)
		}
		testkit.NoError(t, w.QueryRow(t.Context(), `select pg_current_xact_id()::text::bigint`).Scan(&xid))
		open, writers = append(open, xid), append(writers, w)
	}
	listed, next, err := l.openTransactions(t.Context())
	if err != nil || !slices.IsSorted(listed) {
		t.Fatalf("%v, %v", listed, err)
	}
	for _, xid := range open {
		if !slices.Contains(listed, xid) || xid >= next {
			t.Errorf("transaction %d is not listed in %v below %d", xid, listed, next)
		}
	}
	for k := range writers { // the newest first
		k = len(writers) - 1 - k
		if _, err := writers[k].Exec(t.Context(), `commit`); err != nil {
			t.Fatal(err)
		}
		listed, _, err := l.openTransactions(t.Context())
		testkit.NoError(t, err)
		for n, xid := range open {
			if is := n < k; slices.Contains(listed, xid) != is {
				t.Errorf("after the end of %d: %d is open: %v, want %v", open[k], xid, !is, is)
			}
		}
	}
}

// With fewer buckets, those that differ only in their upper bits share a lock. It is held until the last of them is released.
func TestBucketsShareLocks(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	l := locksOf(pgtest.Connect(t, dsn))
	l.buckets = 64
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { _, err := l.acquire(t.Context(), []int32{6, 70, maxBuckets}); return err }, "77:6,64"},
		{func() error { return l.release(t.Context(), []int32{6}) }, "77:6,64"},
		{func() error { return l.release(t.Context(), []int32{maxBuckets}) }, "77:6"},
		{func() error { return l.release(t.Context(), []int32{70}) }, ""},
	} {
		testkit.NoError(t, step.do())
		if got := held(t, dsn); got != step.want {
			t.Errorf("held: %q, want %q", got, step.want)
		}
	}
}
