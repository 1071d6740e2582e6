package sql_test

import (
	"context"
	"slices"
	"strconv"
	"testing"

	"auditstream/integration/pgtest"
	"auditstream/pgnotify"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// slowCommit runs each statement in a transaction that meanwhile is given the chance to be late.
type slowCommit struct {
	*pgx.Conn
	meanwhile func()
}

func (c slowCommit) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	err = pgx.BeginFunc(ctx, c.Conn, func(tx pgx.Tx) error {
		tag, err = tx.Exec(ctx, sql, args...)
		c.meanwhile()
		return err
	})
	return tag, err
}

// A writer that begins after a registration has drawn its transaction id, and looks before it commits, is newer than all that
// have ended: PostgreSQL's snapshot does not list it.
func TestWriterThatBeginsDuringARegistrationIsWaitedFor(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	var writer uint64
	registry := pgnotify.Watched{DB: slowCommit{pgtest.Connect(t, dsn), func() {
		exec(t, w, `begin; update audits set progress = 20 where id = 1`)
		var err error
		if writer, err = strconv.ParseUint(column(t, w, `select pg_current_xact_id()::text`)[0], 10, 64); err != nil {
			t.Error(err)
		}
	}}}
	snap, err := registry.Register(t.Context(), 7, []int64{1})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(snap.InProgress, writer) || snap.Xmax <= writer {
		t.Errorf("%+v, want the writer %d among those in progress, below Xmax", snap, writer)
	}
	b.rings(t, w, `commit`)
	later, err := registry.Snapshot(t.Context())
	if err != nil || slices.Contains(later.InProgress, writer) || later.Xmax <= writer {
		t.Errorf("%+v, %v, want that the writer %d has ended", later, err, writer)
	}
	b.rings(t, w, `update audits set progress = 21 where id = 1`, "1")
}
