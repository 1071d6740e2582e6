package store_test

import (
	"context"
	"errors"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

// A session that listens and does not read keeps notifications in the queue.
func TestQueueUsage(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	conn := pgtest.Connect(t, dsn)
	audits := store.New(conn, store.Audits)
	before, err := audits.QueueUsage(t.Context())
	testkit.NoError(t, err)
	stuck := pgtest.Connect(t, dsn) // inside a transaction it takes nothing from the queue
	for _, sql := range []string{"listen queue_usage_test", "begin"} {
		if _, err := stuck.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), "select pg_notify('queue_usage_test', n::text || repeat('x', 7900)) from generate_series(1, 200) as n"); err != nil {
		t.Fatal(err)
	}
	after, err := audits.QueueUsage(t.Context())
	testkit.NoError(t, err)
	if after <= before || after > 1 {
		t.Errorf("usage %v, before the notifications %v: want more, up to 1", after, before)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := audits.QueueUsage(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context is done", err)
	}
}
