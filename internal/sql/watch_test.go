package sql_test

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// unwatched is an installed table with five rows, of which nobody watches any, and an ear.
func unwatched(t *testing.T) (dsn string, b listener) {
	t.Helper()
	dsn, conn := audits(t)
	exec(t, conn, `insert into audits (url, progress) select 'u', 1 from generate_series(2, 5);
		update audits set progress = 1; alter table audits alter id drop identity`)
	b = listen(t, dsn)
	b.unwatch(t)
	return dsn, b
}

func TestRingsOnlyForWhatIsWatched(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	b.notifies(t, w, `update audits set progress = 10`)
	b.watch(t, 2, 4)
	b.notifies(t, w, `update audits set progress = 11`, "2", "4")
	b.notifies(t, w, `update audits set progress = 12 where id = 3`)
	b.notifies(t, w, `begin; update audits set progress = 13 where id = 3; update audits set progress = 13 where id = 4; commit`, "4")
	b.notifies(t, w, `begin; update audits set progress = 14 where id = 5; update audits set progress = 14 where id = 1;
		update audits set progress = 14 where id = 2; commit`, "2")
	b.notifies(t, w, `insert into audits (id, url) values (6, 'u')`)
	b.notifies(t, w, `delete from audits where id in (4, 5)`, "4")
	b.notifies(t, w, `update audits set id = 9 where id = 3`)
	b.notifies(t, w, `update audits set id = 4 where id = 9`, "4") // a key's change rings for both
	b.notifies(t, w, `update audits set id = 9 where id = 4`, "4")
	b.notifies(t, w, `truncate audits`, "*")
}

// Who watches all that is an owner's is told of new rows, and of rows that are somebody else's now.
func TestRingsForOwners(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	b.notifies(t, w, `update audits set user_id = 'a' where id = 1`)
	b.notifies(t, w, `insert into audits (id, url) values (6, 'u')`)
	b.watchNew(t)
	b.notifies(t, w, `insert into audits (id, url) values (7, 'u'), (8, 'u')`, "7", "8")
	b.notifies(t, w, `update audits set user_id = 'b' where id = 1`, "1")
	b.notifies(t, w, `update audits set user_email = 'b@example.com' where id in (1, 2)`, "1", "2")
	b.notifies(t, w, `update audits set progress = 20`)
	b.notifies(t, w, `delete from audits where id = 8`)
}

// A writer looks anew at each row. What it has changed before somebody watched is found when it has ended: it is among the
// transactions that the snapshot after the lock shows.
func TestWriterThatLookedBeforeIsInTheSnapshot(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	exec(t, w, `begin; update audits set progress = 10 where id = 1`)
	b.watch(t, 1)
	open := column(t, w, `select pg_current_xact_id()::text`)[0]
	if got := column(t, b.conn, `select (not pg_visible_in_snapshot($1::xid8, pg_current_snapshot()))::text`, open); got[0] != "true" {
		t.Error("the snapshot after the lock does not show that the writer that looked before is open")
	}
	b.notifies(t, w, `commit`)
	b.notifies(t, w, `update audits set progress = 11 where id = 1`, "1")
	const rolledBack = `begin; savepoint s; update audits set progress = 12 where id = 1; rollback to s;
		update audits set progress = 12 where id = 2; commit`
	b.notifies(t, w, rolledBack)
	b.watch(t, 2)
	b.notifies(t, w, rolledBack, "2")
}

// The look is at locks, which are in no snapshot, and no read that a serializable transaction could fail for.
func TestEveryIsolationLevelLooksAtThePresent(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	for n, level := range []string{"read committed", "repeatable read", "serializable"} {
		b.unwatch(t)
		b.notifies(t, w, fmt.Sprintf(`begin isolation level %s; update audits set progress = %d where id = 1; commit`, level, 40+n))
		exec(t, w, `begin isolation level `+level+`; select count(*) from audits`)
		b.watch(t, 1)
		exec(t, w, fmt.Sprintf(`update audits set progress = %d where id = 1`, 20+n))
		b.notifies(t, w, `commit`, "1")
		b.notifies(t, w, fmt.Sprintf(`begin isolation level %s; insert into audits (id, url) values (%d, 'u'); delete from audits where id = %[2]d;
			commit`, level, 50+n))
	}
	// Two serializable writers of two audits, and somebody who begins to watch between them.
	other := pgtest.Connect(t, dsn)
	exec(t, w, `begin isolation level serializable; update audits set progress = 30 where id = 2`)
	exec(t, other, `begin isolation level serializable; update audits set progress = 30 where id = 3`)
	b.watch(t, 2, 3)
	exec(t, w, `commit`)
	exec(t, other, `commit`)
}

// Whoever holds the locks in another mode, and whatever is gone of ours, the application's writes neither wait nor fail.
func TestNothingOfOursStopsTheWriter(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{
		`select pg_advisory_lock(class, b) from auditstream.feeds, generate_series(0, buckets + 63) b
			where hashint8(b) & 7 = 0 or b = hashint8(1) & (buckets - 1) or b >= buckets`,
		`drop view auditstream.feeds`, `drop view auditstream.progress`, `revoke all on schema auditstream from public`,
		`create or replace view auditstream.feeds as select 'audits'::text as feed, 1 as class, 1 as buckets`,
		`revoke execute on function auditstream.changed() from public`,
	}, func(t *testing.T, damage string) {
		dsn, b := unwatched(t)
		writer := role(t, dsn)
		w, keeper := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
		exec(t, w, `grant select, insert, update, delete, truncate on audits to `+writer+`; set role `+writer+`; set lock_timeout = '50ms'`)
		b.watch(t, 1)
		exec(t, w, `prepare p as update audits set progress = $1 where id = 1; execute p (2)`) // a plan is cached
		_ = b.heard(t, w)
		b.unwatch(t)
		exec(t, keeper, damage)
		b.watch(t, 2)
		for n, statement := range []string{`update audits set progress = 10 where id = 1`, `insert into audits (id, url) values (7, 'u')`,
			`update audits set id = 8 where id = 7`,
			`begin; savepoint s; update audits set progress = 3; rollback to s; delete from audits where id = 8; commit`} {
			if _, err := w.PgConn().Exec(t.Context(), statement).ReadAll(); err != nil {
				t.Errorf("statement %d: %v", n, err)
			}
		}
		_ = b.heard(t, w)
	})
}

func TestUnwatchedCanBePrepared(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	if column(t, w, `select current_setting('max_prepared_transactions')`)[0] == "0" {
		t.Log("the server of the tests does not allow two-phase commit; the snapshot counts its transactions like all others")
		return
	}
	exec(t, w, `begin; update audits set progress = 10 where id = 1; prepare transaction 'unwatched'`)
	b.notifies(t, w, `commit prepared 'unwatched'`)
}

func TestNotifyAlways(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	conn := pgtest.Connect(t, dsn)
	if plan := b.install(t, conn, sql.Options{NotifyAlways: true}); plan.SQL == "" {
		t.Error("install did not notice the option")
	}
	b.notifies(t, conn, `update audits set progress = 10 where id in (1, 2)`, "1", "2")
	b.notifies(t, conn, `begin; update audits set progress = 11 where id = 1; update audits set progress = 12 where id = 2; commit`, "1", "2")
	b.notifies(t, conn, `insert into audits (id, url) values (6, 'u')`, "6")
	b.notifies(t, conn, `update audits set id = 7 where id = 6`, "6", "7")
	b.notifies(t, conn, `delete from audits where id = 7`, "7")
	b.install(t, conn, sql.Options{})
	b.notifies(t, conn, `update audits set progress = 13 where id = 1`)
}

// A row whose key is null, or a text of more than 255 bytes, causes no notification, no lock and no warning, whatever is watched.
func TestRowWithoutAKeyIsIgnored(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"bigint", "smallint", "uuid", "text", "varchar(500)"} {
		for _, always := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, " always ", always), func(t *testing.T) {
				t.Parallel()
				dsn, conn := database(t)
				exec(t, conn, `create table jobs (id `+kind+` unique, status text, progress integer, user_id text)`)
				install(t, conn, sql.Options{Feed: "jobs", Table: "jobs", NotifyAlways: always})
				b := listener{pgtest.Connect(t, dsn)}
				exec(t, b.conn, `listen auditstream; select count(pg_advisory_lock_shared(class, n)) from auditstream.feeds, generate_series(0, buckets + 63) n`)
				key := map[string]string{"uuid": "00000000-0000-4000-8000-000000000001"}[kind]
				key = cmp.Or(key, "7")
				b.notifies(t, conn, `insert into jobs values ('`+key+`', 'running', 1)`, "jobs:"+key)
				var warned []string
				cfg := conn.Config().Copy()
				cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { warned = append(warned, n.Message) }
				writer, err := pgx.ConnectConfig(t.Context(), cfg)
				testkit.NoError(t, err)
				t.Cleanup(func() { _ = writer.Close(context.Background()) })
				b.notifies(t, writer, `insert into jobs values (null, 'running', 1); update jobs set progress = 2 where id is null; delete from jobs where id is null`)
				b.notifies(t, writer, `update jobs set id = null where id is not null`, "jobs:"+key)
				b.notifies(t, writer, `update jobs set id = '`+key+`'`, "jobs:"+key)
				if kind == "text" || strings.HasPrefix(kind, "varchar") {
					b.notifies(t, writer, `update jobs set id = repeat('x', 256)`, "jobs:"+key)
					b.notifies(t, writer, `update jobs set progress = 3; update jobs set id = null; delete from jobs`)
				}
				equal(t, "locks", column(t, writer, `select count(*)::text from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()`), []string{"0"})
				if len(warned) > 0 {
					t.Errorf("warnings: %q", warned)
				}
			})
		}
	}
}

// What an instance has said of what it watches ends with its session, however that ends.
func TestDeadInstancesLocksGoAway(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	killed := listener{pgtest.Connect(t, dsn)}
	killed.watch(t, 1, 2)
	b.watch(t, 2)
	b.notifies(t, w, `update audits set progress = 10`, "1", "2")
	pid := column(t, killed.conn, `select pg_backend_pid()::text`)[0]
	exec(t, w, `select pg_terminate_backend(`+pid+`, 10000)`)
	b.notifies(t, w, `update audits set progress = 11`, "2")
}

// A writer leaves no lock of ours behind, in its transaction or in its session.
func TestWritersKeepNoLocks(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	b.watch(t, 1)
	exec(t, w, `begin; update audits set progress = 10; update audits set id = id + 10;
		insert into audits (id, url) values (99, 'u'); delete from audits where id = 99`)
	pid := column(t, w, `select pg_backend_pid()::text`)[0]
	equal(t, "locks", column(t, b.conn, `select mode from pg_locks where locktype = 'advisory' and pid = $1::int`, pid), nil)
	exec(t, w, `commit`)
}
