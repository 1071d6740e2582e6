package sql_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
)

// What an upgrade costs those who write meanwhile: they wait for the lock that replaces the triggers, and for nothing else. One who is
// in the way for longer than an attempt at it makes install try again. What is watched is announced by the old triggers until then
// and by the new ones from then on.
func TestUpgradeUnderWriters(t *testing.T) {
	t.Parallel()
	for version := 1; version < sql.SchemaVersion; version++ {
		dsn, conn := database(t)
		old(t, dsn, version)
		exec(t, conn, `insert into audits (url, status) select 'u', 'running' from generate_series(2, 12)`)
		b := listen(t, dsn)
		var group sync.WaitGroup
		var writes atomic.Int64
		stop := make(chan struct{})
		longest := make([]time.Duration, 3)
		for n := range longest {
			w := pgtest.Connect(t, dsn)
			group.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					began := time.Now()
					if _, err := w.Exec(t.Context(), `update audits set progress = $2 where id = $1`, 10+n, i%101); err != nil {
						t.Errorf("from version %d: a writer failed: %v", version, err)
						return
					}
					longest[n] = max(longest[n], time.Since(began))
					writes.Add(1)
				}
			})
		}
		inTheWay := pgtest.Connect(t, dsn)
		exec(t, inTheWay, `begin; update audits set progress = 7 where id = 1`)
		began := time.Now()
		_, installed := waitingInstall(t.Context(), conn, sql.Options{})
		exec(t, inTheWay, `commit`)
		if err := <-installed; err != nil {
			t.Fatalf("from version %d: %v", version, err)
		}
		took := time.Since(began)
		close(stop)
		group.Wait()
		t.Logf("from version %d: installed in %v beside %d writes, of which the longest took %v", version, took, writes.Load(), slices.Max(longest))
		if limit := 200*time.Millisecond + 1200*time.Millisecond; slices.Max(longest) > limit { // the machine may be busy
			t.Errorf("from version %d: a writer waited %v, want %v at most", version, slices.Max(longest), limit)
		}
		heard := b.heard(t, inTheWay)
		if !slices.Contains(heard, "1") || !slices.Contains(heard, "*") {
			t.Errorf("from version %d: heard %d notifications, want that of row 1 and the install's", version, len(heard))
		}
		b.watchAll(t)
		b.notifies(t, inTheWay, `update audits set progress = 8 where id = 1`, "1")
	}
}

// An older serve continues while the schema is upgraded: what it reads and hears is the same in each version. How it says what it watches is
// not, so across versions the safety net finds changes.
func TestInterfaceOfServeIsTheSameInEachVersion(t *testing.T) {
	t.Parallel()
	if sql.Channel != "auditstream" {
		t.Errorf("the channel is %s", sql.Channel)
	}
	for version := 1; version <= sql.SchemaVersion; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			old(t, dsn, version)
			equal(t, "the view", column(t, conn, `select attname || ' ' || format_type(atttypid, null) from pg_attribute
				where attrelid = 'auditstream.progress'::regclass and attnum > 0 order by attnum`), []string{
				"audit_id bigint", "user_id text", "user_email text", "status text", "progress integer",
				"message text", "geo_score double precision", "total_pages integer", "error text",
			})
			b := listener{pgtest.Connect(t, dsn)}
			exec(t, b.conn, `listen auditstream`)
			b.watch(t, 1, 2)
			b.notifies(t, conn, `update audits set progress = 20`, "1")
			b.notifies(t, conn, `delete from audits where id = 1`, "1")
			b.notifies(t, conn, `truncate audits`, "*")
		})
	}
}
