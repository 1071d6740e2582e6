package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/pgtest"
	"auditstream/sql"
)

// unwatched is an installed table with three rows, of which nobody watches any, and an ear.
func unwatched(t *testing.T) (dsn string, b bell) {
	t.Helper()
	dsn, conn := audits(t)
	exec(t, conn, `insert into audits (url, progress) select 'u', 1 from generate_series(2, 5);
		update audits set progress = 1; alter table audits alter id drop identity`)
	b = listen(t, dsn)
	exec(t, conn, `truncate auditstream.watch`)
	return dsn, b
}

func TestRingsOnlyForWhatIsWatched(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	b.rings(t, w, `update audits set progress = 10`)
	exec(t, w, `insert into auditstream.watch values (2, 1), (4, 1), (4, 2)`)
	b.rings(t, w, `update audits set progress = 11`, "2", "4")
	b.rings(t, w, `update audits set progress = 12 where id = 3`)
	b.rings(t, w, `begin; update audits set progress = 13 where id = 3; update audits set progress = 13 where id = 4; commit`, "4")
	b.rings(t, w, `begin; update audits set progress = 14 where id = 5; update audits set progress = 14 where id = 1; update audits set progress = 14 where id = 2; commit`, "2")
	b.rings(t, w, `insert into audits (id, url) values (6, 'u')`)
	b.rings(t, w, `delete from audits where id in (4, 5)`, "4")
	b.rings(t, w, `update audits set id = 9 where id = 3`, "3", "9") // rare, and never wrong
	b.rings(t, w, `truncate audits`, "*")
}

// What a transaction has seen unwatched stays so for it: serve reads again when it has ended. The next one looks anew.
func TestEachTransactionLooksAnew(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w, server := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	exec(t, w, `begin; update audits set progress = 10 where id = 1`)
	exec(t, server, `insert into auditstream.watch values (1, 1)`)
	open := column(t, w, `select pg_current_xact_id()::text`)[0]
	if got := column(t, server, `select ($1::xid8 in (select pg_snapshot_xip(pg_current_snapshot())))::text`, open); got[0] != "true" {
		t.Error("the snapshot after the registration does not show the writer that looked before")
	}
	b.rings(t, w, `commit`)
	b.rings(t, w, `update audits set progress = 11 where id = 1`, "1")
	// A savepoint that is taken back takes the look with it, or not: both are right.
	exec(t, server, `truncate auditstream.watch`)
	b.rings(t, w, `begin; savepoint s; update audits set progress = 12 where id = 1; rollback to s; update audits set progress = 12 where id = 2; commit`)
	exec(t, server, `insert into auditstream.watch values (2, 1)`)
	b.rings(t, w, `begin; savepoint s; update audits set progress = 13 where id = 1; rollback to s; update audits set progress = 13 where id = 2; commit`, "2")
}

// Under these isolation levels a look would be one into the past, and count as a read of the application's.
func TestSnapshotsOfOldRingAlways(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w, server := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	for n, level := range []string{"repeatable read", "serializable"} {
		exec(t, w, `begin isolation level `+level+`; select count(*) from audits`)
		exec(t, server, `insert into auditstream.watch values (1, 1) on conflict do nothing`)
		exec(t, w, fmt.Sprintf(`update audits set progress = %d where id = 1`, 20+n))
		if locks := column(t, server, `select relation::regclass::text from pg_locks where mode = 'SIReadLock' and relation::regclass::text ~ 'watch'`); len(locks) > 0 {
			t.Errorf("%s: predicate locks on %q", level, locks)
		}
		b.rings(t, w, `commit`, "1")
	}
	// Two serializable writers of two audits, and a registration between them.
	other := pgtest.Connect(t, dsn)
	exec(t, w, `begin isolation level serializable; update audits set progress = 30 where id = 2`)
	exec(t, other, `begin isolation level serializable; update audits set progress = 30 where id = 3`)
	exec(t, server, `begin isolation level serializable; insert into auditstream.watch values (2, 1), (3, 1); commit`)
	exec(t, w, `commit`)
	exec(t, other, `commit`)
}

// Whatever becomes of the table, the application's writes succeed, and ring.
func TestWithoutTheTableItRings(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{
		`drop table auditstream.watch`, `alter table auditstream.watch rename to other`, `alter table auditstream.watch rename audit_id to other`,
		`alter table auditstream.watch alter audit_id type text`, `create role %[1]s; alter table auditstream.watch owner to %[1]s; revoke all on auditstream.watch from public`,
	} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			dsn, b := unwatched(t)
			if strings.Contains(damage, "%") {
				owner := role(t, dsn)
				damage = strings.Replace(fmt.Sprintf(damage, owner), "create role "+owner+"; ", "", 1) +
					"; alter function auditstream.notify_change() owner to " + owner + "; revoke all on auditstream.watch from " + owner
			}
			w := pgtest.Connect(t, dsn)
			b.rings(t, w, `update audits set progress = 10 where id = 1`) // a plan is cached
			exec(t, pgtest.Connect(t, dsn), damage)
			b.rings(t, w, `update audits set progress = 11 where id = 1`, "1")
			b.rings(t, w, `begin; update audits set progress = 12 where id = 1; update audits set progress = 12 where id = 2; commit`, "1", "2")
			b.rings(t, w, `delete from audits where id = 1`, "1")
		})
	}
}

// A transaction that cannot wait finds the table locked: it rings, and goes on.
func TestLockedTableFailsNobody(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w, locker := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	exec(t, locker, `begin; lock table auditstream.watch in access exclusive mode`)
	b.rings(t, w, `set lock_timeout = '50ms'; update audits set progress = 10 where id = 1`, "1")
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
	b.rings(t, w, `commit prepared 'unwatched'`)
}

func TestNotifyAlways(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	conn := pgtest.Connect(t, dsn)
	if plan := b.install(t, conn, sql.Options{NotifyAlways: true}); plan.SQL == "" {
		t.Error("install did not notice the option")
	}
	b.rings(t, conn, `update audits set progress = 10 where id in (1, 2)`, "1", "2")
	b.rings(t, conn, `begin; update audits set progress = 11 where id = 1; update audits set progress = 12 where id = 2; commit`, "1", "2")
	b.install(t, conn, sql.Options{})
	b.rings(t, conn, `update audits set progress = 13 where id = 1`)
}

// Rows of an instance that nobody holds the lock of go away, others stay.
func TestDeadInstancesRowsGoAway(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	const mine, living, dead = int64(1)<<62 + 12345, int64(1)<<33 + 7, 99
	other, killed := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	exec(t, conn, fmt.Sprintf(`select pg_advisory_lock_shared(%d)`, mine))
	exec(t, other, fmt.Sprintf(`select pg_advisory_lock_shared(%d)`, living))
	exec(t, killed, fmt.Sprintf(`select pg_advisory_lock_shared(%d)`, dead))
	exec(t, conn, fmt.Sprintf(`insert into auditstream.watch select id, i from generate_series(1, 2) id, unnest(array[%d, %d, %d]) i`, mine, living, dead))
	rows := func() []string {
		return column(t, conn, `select audit_id || ' ' || instance from auditstream.watch order by instance, audit_id`)
	}
	unwatch := func(ids string) string {
		return column(t, conn, fmt.Sprintf(`select auditstream.unwatch(%d, %s)::text`, mine, ids))[0]
	}
	all := []string{"1 99", "2 99", fmt.Sprintf("1 %d", living), fmt.Sprintf("2 %d", living), fmt.Sprintf("1 %d", mine), fmt.Sprintf("2 %d", mine)}
	if got := unwatch(`'{}'`); got != "2" {
		t.Errorf("%s rows left, want 2", got)
	}
	equal(t, "while all live", rows(), all)
	pid := column(t, killed, `select pg_backend_pid()::text`)[0]
	exec(t, conn, `select pg_terminate_backend(`+pid+`, 10000)`)
	if got := unwatch(`'{2}'`); got != "1" {
		t.Errorf("%s rows left, want 1", got)
	}
	equal(t, "after one was killed", rows(), []string{all[2], all[3], all[4]})
	if got := unwatch(`null`); got != "0" {
		t.Errorf("%s rows left, want none", got)
	}
	equal(t, "after leaving", rows(), all[2:4])
}

// The operators of the writer's search_path are not ours: the function has the rights of who installed it.
func TestImpostorsOfTheLook(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	conn := pgtest.Connect(t, dsn)
	exec(t, conn, `insert into auditstream.watch values (2, 1)`)
	var evil strings.Builder
	evil.WriteString(`create schema evil; create domain evil.text as pg_catalog.text check (false); create domain evil.int8 as pg_catalog.int8 check (false);
		create function evil.called() returns text language plpgsql as $$ begin raise 'called'; end $$;`)
	for _, f := range []string{"max(bigint)", "min(bigint)", "split_part(text, text, integer)", "current_setting(text, boolean)", "current_setting(text)",
		"concat_ws(text, bigint, bigint)", "concat_ws(text, text, text)", "set_config(text, text, boolean)", "pg_notify(text, text)", "lower(text)"} {
		fmt.Fprintf(&evil, `create function evil.%s returns pg_catalog.text language plpgsql as $$ begin raise 'called'; end $$;`,
			strings.NewReplacer("(text", "(pg_catalog.text", " text", " pg_catalog.text").Replace(f))
	}
	for _, on := range []string{"bigint, bigint", "pg_catalog.text, pg_catalog.text", "bigint, integer"} {
		left, right, _ := strings.Cut(on, ", ")
		fmt.Fprintf(&evil, `create function evil.op(%s, %s) returns boolean language plpgsql as $$ begin raise 'called'; end $$;`, left, right)
		for _, op := range []string{"=", "<>", "<", ">", "<=", ">=", "~~"} {
			fmt.Fprintf(&evil, `create operator evil.%s (leftarg = %s, rightarg = %s, function = evil.op);`, op, left, right)
		}
	}
	exec(t, conn, evil.String())
	exec(t, conn, `set search_path = evil, public, pg_catalog`)
	// An error inside would be caught, and ring: so that what is not watched does not ring shows that nothing was called.
	b.rings(t, conn, `begin; update audits set progress = 12 where id operator(pg_catalog.<>) 2; commit`)
	b.rings(t, conn, `begin; update audits set progress = 14; update audits set progress = 15; commit`, "2")
	b.rings(t, conn, `update audits set id = 70 where id operator(pg_catalog.=) 3`, "3", "70")
}

// An install of the version before had neither the table nor the rights: those who serve get them.
func TestUpgradeKeepsServing(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	server := role(t, dsn)
	install(t, conn, sql.Options{Create: true, Role: server})
	exec(t, conn, `drop function auditstream.unwatch(bigint, bigint[]); drop table auditstream.watch`)
	if plan := install(t, conn, sql.Options{}); plan.SQL == "" {
		t.Fatal("install did not notice that the table is gone")
	}
	if plan := install(t, conn, sql.Options{Role: server}); plan.SQL != "" {
		t.Errorf("the role lacks rights:\n%s", plan.SQL)
	}
	exec(t, conn, `set role `+server+`; insert into auditstream.watch values (1, 1); select auditstream.unwatch(1, null)`)
}
