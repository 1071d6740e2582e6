package store_test

import (
	"context"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
)

// planned runs queries, and afterwards has the plan of the last one.
type planned struct {
	*pgx.Conn
	plan string
}

func (p *planned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := p.Conn.Query(ctx, "explain "+sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	p.plan = strings.Join(lines, "\n")
	return p.Conn.Query(ctx, sql, args...)
}

// One who asked for all of theirs in a table of millions of rows had each processor read it, and all others waited.
func TestOwnedTakesOneProcessor(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, handwrittenView)
	db := &planned{Conn: pgtest.Connect(t, dsn)}
	for _, setting := range []string{"parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0"} {
		if _, err := db.Exec(t.Context(), "set "+setting); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.Query(t.Context(), "select count(*) from auditstream.progress")
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if !strings.Contains(db.plan, "Workers Planned") {
		t.Fatalf("a count is planned without workers, so this test would see nothing:\n%s", db.plan)
	}
	_, _, err = store.New(db, store.Audits).Owned(t.Context(), store.Viewer{Subject: "alice", Email: "a@b.c"}.Owners())
	if err != nil || strings.Contains(db.plan, "Workers Planned") || !strings.Contains(db.plan, "Seq Scan on things") {
		t.Errorf("error %v, want a plan without workers:\n%s", err, db.plan)
	}
}
