package faults

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// The application must not notice us: no UPDATE fails, and none waits. The server is the test's own, with PostgreSQL's
// own settings: NOTIFY's lock is held during a commit's fsync, and its queue is the whole server's. What it measures it holds
// against the same without triggers, measured just before and after.
func TestPitfall10WritersNeitherFailNorWaitWithFsyncOn(t *testing.T) {
	t.Parallel()
	const writers, rows = 32, 500
	db := harness.Adopt(t, pgtest.NewServer(t).DSN("postgres"))
	// Without fsync the lock is held for next to nothing, and the figures would say that triggers are free.
	db.WantSQL(t, `select current_setting('fsync'), current_setting('synchronous_commit')`, "on|on")
	ids := db.InsertMany(t, rows)
	conns := make([]*pgx.Conn, writers)
	for k := range conns {
		conns[k] = pgtest.Connect(t, db.Admin)
	}
	load := func(t *testing.T, name string, updates int) loadTimes {
		t.Helper()
		times := runLoad(t, conns, rows, updates)
		t.Logf("%-28s %6d updates in %8v, median %8v, 99th %8v, longest %8v", name, updates, times.total.Round(time.Millisecond),
			times.median.Round(time.Microsecond), times.p99.Round(time.Microsecond), times.longest.Round(time.Microsecond))
		return times
	}
	// modest loads the table and holds it against the same load without triggers, just before and just after: others use
	// the disk too, and not always alike.
	modest := func(t *testing.T, name string, updates int) {
		t.Helper()
		plain := func() loadTimes {
			db.SQL(t, `alter table audits disable trigger user`)
			defer db.SQL(t, `alter table audits enable trigger user`)
			return load(t, "without triggers", updates)
		}
		harness.Measure(t, func() error {
			before := plain()
			times := load(t, name, updates)
			without := before.worst(plain())
			// Some multiple is the price of a trigger; waiting for somebody would be seconds.
			if limit := 20*without.p99 + 20*time.Millisecond; times.p99 > limit {
				return fmt.Errorf("99 of 100 updates took up to %v, want at most %v", times.p99, limit)
			}
			if limit := 20*without.longest + 100*time.Millisecond; times.longest > limit {
				return fmt.Errorf("an update took %v, want at most %v", times.longest, limit)
			}
			return nil
		})
	}

	t.Run("watched or not", func(t *testing.T) { writersKeepTheirSpeed(t, db, conns, rows) })
	t.Run("server stopped", func(t *testing.T) { modest(t, "triggers, nobody listens", 3_000) })

	i := harness.ServeReady(t, db.Serve)
	viewers := i.Crowd(t, 20, ids[:10], nil)
	t.Run("server running", func(t *testing.T) {
		modest(t, "triggers, server listens", 3_000)
		finish(t, db, viewers, 1_000_000)
	})

	t.Run("listener blocked", func(t *testing.T) {
		i.Signal(t, syscall.SIGSTOP)
		resume := sync.OnceFunc(func() { i.Signal(t, syscall.SIGCONT) })
		defer resume()
		modest(t, "triggers, server stands still", 6_000)
		resume()
		finish(t, db, viewers, 2_000_000)
		db.WaitSQL(t, `select pg_notification_queue_usage()`, "0")
		i.WaitReady(t, "up")
	})
}

// finish commits a last state, which every stream must show.
func finish(t *testing.T, db harness.Database, viewers []*harness.Viewer, n int) {
	t.Helper()
	db.SetAll(t, n)
	harness.AllReached(t, viewers, n)
}

type loadTimes struct{ total, median, p99, longest time.Duration }

// worst is the slower of two runs, figure by figure.
func (a loadTimes) worst(b loadTimes) loadTimes {
	return loadTimes{max(a.total, b.total), max(a.median, b.median), max(a.p99, b.p99), max(a.longest, b.longest)}
}

// runLoad changes rows, each time another one, from all connections at once.
func runLoad(t *testing.T, conns []*pgx.Conn, rows, updates int) loadTimes {
	t.Helper()
	each := updates / len(conns)
	took := make([][]time.Duration, len(conns))
	errs := make([]error, len(conns))
	var group sync.WaitGroup
	start := time.Now()
	for k, conn := range conns {
		group.Go(func() {
			for n := range each {
				from := time.Now()
				row := 1 + (k+n*len(conns))%rows
				if _, err := conn.Exec(t.Context(), `update audits set total_pages = total_pages + 1 where id = $1`, row); err != nil {
					errs[k] = err
					return
				}
				took[k] = append(took[k], time.Since(from))
			}
		})
	}
	group.Wait()
	total := time.Since(start)
	for _, err := range errs {
		if err != nil {
			t.Errorf("an update failed: %v", err)
		}
	}
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) == 0 {
		t.Fatal("no update succeeded")
	}
	return loadTimes{total, all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}
