package faults

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// The triggers ring for what is watched. A writer whose trigger looked before the viewer came, and who commits after the
// viewer's first event, rings nothing: its change is shown all the same, long before the safety net.
func TestFaultWriterThatLookedBeforeTheViewerCame(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultWriterThatLookedBeforeTheViewerCame)
}

func testFaultWriterThatLookedBeforeTheViewerCame(t *testing.T) {
	server := pgtest.NewServer(t, func(c *localpg.Config) { c.Settings = map[string]string{"max_prepared_transactions": "4"} })
	db := harness.Adopt(t, server.DSN("postgres"))
	i := harness.ServeReady(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	for _, test := range []struct{ name, before, after string }{
		{"plain", `begin; update audits set progress = 50 where id = $id`, `commit`},
		{"in a savepoint", `begin; savepoint a; update audits set progress = 50 where id = $id; release a; savepoint b; update audits set progress = 50 where id = $id`, `commit`},
		{"a savepoint rolled back", `begin; savepoint a; update audits set progress = 40 where id = $id; rollback to a; update audits set progress = 50 where id = $id`, `commit`},
		{"many rows at once", `begin; update audits set progress = 50`, `commit`},
		{"prepared", `begin; update audits set progress = 50 where id = $id; prepare transaction 'p'`, `commit prepared 'p'`},
		{"looked at another audit", `begin; update audits set progress = progress where id = $id; update audits set message = 'm' where id <> $id`, `update audits set progress = 50 where id = $id; commit`},
		{"repeatable read with a snapshot alone", `begin isolation level repeatable read; select count(*) from audits`, `update audits set progress = 50 where id = $id; commit`},
		{"repeatable read", `begin isolation level repeatable read; update audits set progress = 50 where id = $id`, `commit`},
		{"serializable", `begin isolation level serializable; select count(*) from audits`, `update audits set progress = 50 where id = $id; commit`},
		{"insert", `begin; delete from audits where id = $id; insert into audits (id, url, user_id, status, progress) overriding system value values ($id, 'u', 'alice', 'running', 50)`, `commit`},
	} {
		t.Run(test.name, func(t *testing.T) { // in turn: other transactions that are open would be waited for, too
			id := db.Insert(t, "status, progress", "'running', 10")
			w := pgtest.Connect(t, db.Admin)
			fill := func(sql string) string { return strings.ReplaceAll(sql, "$id", id) }
			harness.Script(t, w, fill(test.before))
			s := i.Watch(t, id, harness.AliceToken(t))
			s.WantProgress(t, 10)
			harness.Script(t, w, fill(test.after))
			committed := time.Now()
			s.WantProgress(t, 50)
			t.Logf("shown %v after the commit", time.Since(committed).Round(time.Millisecond))
			harness.Script(t, w, fill(`update audits set progress = 60 where id = $id`))
			s.WantProgress(t, 60)
		})
	}
	i.WantMetric(t, "auditstream_notifications_missed_total", 0)
}

// A killed instance's locks go with its session, and so do those of a stopped one.
func TestFaultLocksOfTheDeadGoAway(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultLocksOfTheDeadGoAway)
}

func testFaultLocksOfTheDeadGoAway(t *testing.T) {
	db := harness.NewDatabase(t)
	id := db.Insert(t, "status, progress", "'running', 10")
	other := db.Insert(t, "status, progress", "'running', 10")
	want := func(holders, others int) {
		t.Helper()
		db.WatchedBy(t, id, holders)
		db.WatchedBy(t, other, others)
	}
	living := harness.Serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	killed := harness.Launch(t, harness.Binary(t), db.Serve)
	living.WaitReady(t, "up")
	killed.WaitReady(t, "up")
	s := living.Shown(t, id, harness.AliceToken(t))
	killed.Watch(t, id, harness.AliceToken(t)).Next(t)
	killed.Watch(t, other, harness.AliceToken(t)).Next(t)
	want(2, 1)
	killed.Signal(t, syscall.SIGKILL)
	want(1, 0)
	db.SQL(t, `update audits set progress = 20`)
	s.WantProgress(t, 20)
	// Installed anew while streams are open: what is watched is told to the new triggers.
	harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall")
	harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--role", harness.ServeRole)
	want(1, 0)
	stopped := harness.ServeReady(t, db.Serve)
	stopped.Watch(t, other, harness.AliceToken(t)).Next(t)
	want(1, 1)
	stopped.Stop(t)
	want(1, 0)
}

// writersKeepTheirSpeed compares the same load without triggers, with nobody watching, a tenth and all watched, in
// turn: others use the disk and the processors, too.
func writersKeepTheirSpeed(t *testing.T, db harness.Database, conns []*pgx.Conn, rows int) {
	t.Helper()
	const updates = 3000
	watching := pgtest.Connect(t, db.Admin)
	triggers := func(state string) string { return `alter table audits ` + state + ` trigger user; ` }
	watch := func(condition string) string { // as an instance of serve does
		return triggers("enable") + `select pg_advisory_unlock_all(); select pg_advisory_lock_shared(class, bucket)
			from (select distinct class, hashint8(id) & (buckets - 1) as bucket from audits, auditstream.feeds where ` + condition + `) watched`
	}
	kinds := []struct{ name, prepare string }{
		{"without triggers", triggers("disable")}, {"nobody watches", watch("false")}, {"a tenth is watched", watch("id % 10 = 0")}, {"all are watched", watch("true")},
	}
	rates := make([][]float64, len(kinds))
	harness.Measure(t, func() error {
		for range 2 {
			for k, kind := range kinds {
				harness.Script(t, watching, kind.prepare)
				runLoad(t, conns, rows, 320)
				took := runLoad(t, conns, rows, updates).total
				rates[k] = append(rates[k], updates/took.Seconds())
			}
		}
		// The best round of each: whatever else the machine does makes rounds slower, never faster.
		ratio := make([]float64, len(kinds))
		for k, kind := range kinds {
			ratio[k] = slices.Max(rates[k]) / slices.Max(rates[0])
			t.Logf("%-20s %6.0f commits/s, %3.0f %% of those without triggers", kind.name, slices.Max(rates[k]), 100*ratio[k])
		}
		// The goal is 0.85. What the look costs is processor time, so the ratio is worse where others use the processors; that
		// writers of unwatched audits do not wait for each other shows anywhere.
		if ratio[1] < 0.4 || ratio[1] < 1.5*ratio[3] {
			return fmt.Errorf("writers of audits that nobody watches keep %.0f %% of their speed, those of watched ones %.0f %%", 100*ratio[1], 100*ratio[3])
		}
		return nil
	})
	harness.Script(t, watching, `select pg_advisory_unlock_all()`)
}
