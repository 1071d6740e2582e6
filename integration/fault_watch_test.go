package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// The triggers ring for what is watched. A writer whose trigger looked before the viewer came, and who commits after the
// viewer's first event, rings nothing: its change is shown all the same, long before the safety net.
func TestFaultWriterThatLookedBeforeTheViewerCame(t *testing.T) {
	overBoth(t, testFaultWriterThatLookedBeforeTheViewerCame)
}

func testFaultWriterThatLookedBeforeTheViewerCame(t *testing.T) {
	server := pgtest.NewServer(t, func(c *localpg.Config) { c.Settings = map[string]string{"max_prepared_transactions": "4"} })
	db := adopt(t, server.DSN("postgres"))
	i := serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	i.waitReady(t, "up")
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
			id := db.insert(t, "status, progress", "'running', 10")
			w := pgtest.Connect(t, db.Admin)
			fill := func(sql string) string { return strings.ReplaceAll(sql, "$id", id) }
			simple(t, w, fill(test.before))
			s := i.watch(t, id, alice(t))
			if got := s.nextProgress(t); got.Progress != 10 {
				t.Fatalf("first event: progress %d, want 10", got.Progress)
			}
			simple(t, w, fill(test.after))
			committed := time.Now()
			if got := s.nextProgress(t); got.Progress != 50 {
				t.Errorf("progress %d, want 50", got.Progress)
			}
			t.Logf("shown %v after the commit", time.Since(committed).Round(time.Millisecond))
			simple(t, w, fill(`update audits set progress = 60 where id = $id`))
			if got := s.nextProgress(t); got.Progress != 60 {
				t.Errorf("progress %d, want 60", got.Progress)
			}
		})
	}
	if got := i.metric(t, "auditstream_notifications_missed_total"); got != 0 {
		t.Errorf("%v notifications missed, want none", got)
	}
}

// A killed instance's locks go with its session, and so do those of a stopped one.
func TestFaultLocksOfTheDeadGoAway(t *testing.T) {
	overBoth(t, testFaultLocksOfTheDeadGoAway)
}

func testFaultLocksOfTheDeadGoAway(t *testing.T) {
	db := newDatabase(t)
	id := db.insert(t, "status, progress", "'running', 10")
	other := db.insert(t, "status, progress", "'running', 10")
	want := func(holders, others int) {
		t.Helper()
		db.watchedBy(t, id, holders)
		db.watchedBy(t, other, others)
	}
	living := serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	killed := launch(t, binary(t), db.Serve)
	living.waitReady(t, "up")
	killed.waitReady(t, "up")
	s := living.watch(t, id, alice(t))
	s.next(t)
	killed.watch(t, id, alice(t)).next(t)
	killed.watch(t, other, alice(t)).next(t)
	want(2, 1)
	killed.signal(t, syscall.SIGKILL)
	want(1, 0)
	db.sql(t, `update audits set progress = 20`)
	if got := s.nextProgress(t); got.Progress != 20 {
		t.Errorf("progress %d, want 20", got.Progress)
	}
	// Installed anew while streams are open: what is watched is told to the new triggers.
	command(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall")
	command(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--role", role)
	want(1, 0)
	stopped := serve(t, db.Serve)
	stopped.waitReady(t, "up")
	stopped.watch(t, other, alice(t)).next(t)
	want(1, 1)
	stopped.signal(t, syscall.SIGTERM)
	stopped.end(t)
	want(1, 0)
}

// heldLocks are the locks by which writers see what is watched: of each the bucket and the session.
const heldLocks = `(select l.objid::bigint as bucket, l.pid, f.buckets from pg_locks l, auditstream.feeds f
	where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid::bigint = f.class and l.mode = 'ShareLock'
	  and l.database = (select oid from pg_database where datname = current_database())) held`

// watchedBy waits until so many instances tell writers that an audit is watched; of "new", that whatever begins is.
func (db database) watchedBy(t testing.TB, id string, instances int) {
	t.Helper()
	bucket := "hashint8(" + id + ") & (buckets - 1)"
	if id == "new" {
		bucket = "buckets"
	}
	eventually(t, func() error {
		if got := db.sql(t, "select count(distinct pid) from "+heldLocks+" where bucket = "+bucket); got != strconv.Itoa(instances) {
			return fmt.Errorf("%s instances hold the lock of audit %s, want %d", got, id, instances)
		}
		return nil
	})
}

func simple(t testing.TB, conn *pgx.Conn, script string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

// writersKeepTheirSpeed compares the same load without triggers, with nobody watching, a tenth and all watched, in
// turn: others use the disk and the processors, too.
func writersKeepTheirSpeed(t *testing.T, db database, conns []*pgx.Conn, rows int) {
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
	repeat(t, func() error {
		for range 2 {
			for k, kind := range kinds {
				simple(t, watching, kind.prepare)
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
	simple(t, watching, `select pg_advisory_unlock_all()`)
}

// bulkUpdate compares one update of many rows that nobody watches with the same without triggers.
func bulkUpdate(t *testing.T, db database) {
	t.Helper()
	const rows = 100_000
	conn := pgtest.Connect(t, db.Admin)
	exec1(t, conn, `insert into audits (url, user_id, status) select 'https://example.com', 'alice', 'running' from generate_series(1, $1)`, rows)
	progress := 50
	repeat(t, func() error {
		took := map[string]time.Duration{}
		for _, state := range []string{"disable", "enable"} {
			exec1(t, conn, `alter table audits `+state+` trigger user`)
			exec1(t, conn, `vacuum audits`)
			exec1(t, conn, `checkpoint`)
			progress++
			start := time.Now()
			exec1(t, conn, fmt.Sprintf(`update audits set progress = %d`, progress))
			took[state] = time.Since(start)
		}
		without, with := took["disable"], took["enable"]
		t.Logf("update of %d rows: %v without triggers, %v with", rows, without.Round(time.Millisecond), with.Round(time.Millisecond))
		if with > 3*without {
			return fmt.Errorf("an update of %d rows that nobody watches takes %.2f times as long as without triggers", rows, float64(with)/float64(without))
		}
		return nil
	})
	exec1(t, conn, `delete from audits where total_pages is null`)
}
