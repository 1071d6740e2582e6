package sql_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"auditstream/integration/pgtest"
	"auditstream/sql"
)

// The comparison of columns runs under a search_path of its own, which the application must never see.
func TestSearchPathIsTheApplicationsAgain(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	want := func(path string) {
		t.Helper()
		if got := column(t, conn, `show search_path`)[0]; got != path {
			t.Errorf("search_path is %s, want %s", got, path)
		}
	}
	exec(t, conn, `create schema app; set search_path = app, public`)
	b.rings(t, conn, `update audits set progress = 20`, "1")
	want("app, public")
	exec(t, conn, `begin; set local search_path = public; update audits set progress = 21`)
	want("public")
	exec(t, conn, `savepoint s; update audits set progress = 22; rollback to s`)
	want("public")
	exec(t, conn, `commit`)
	want("app, public")
	exec(t, conn, `begin; set search_path = public, app; update audits set progress = 23; commit`)
	want("public, app")
	exec(t, conn, `begin; update audits set progress = 24; set search_path = app, public; commit`)
	want("app, public")
	exec(t, conn, `begin; update audits set progress = 25; set search_path = public; rollback`)
	want("app, public")
	exec(t, conn, `alter table audits rename column message to text`) // the comparison fails
	_ = b.heard(t, conn)
	exec(t, conn, `begin; update audits set progress = 26`)
	want("app, public")
	b.rings(t, conn, `commit`, "1")
	want("app, public")
}

func TestPlannersSettingIsTheApplicationsAgain(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	exec(t, conn, `insert into auditstream.watch values (1, 1)`)
	for _, set := range []string{``, `begin`, `rollback; set enable_nestloop = off`, `reset enable_nestloop; begin; set local enable_nestloop = off`,
		`rollback; begin; set enable_nestloop = off; savepoint s`, `commit`} {
		if set != `` {
			exec(t, conn, set)
		}
		before := column(t, conn, `show enable_nestloop`)[0]
		exec(t, conn, `update audits set progress = (progress + 1) % 101`)
		if got := column(t, conn, `show enable_nestloop`)[0]; got != before {
			t.Errorf("after %q and an update enable_nestloop is %s, want %s", set, got, before)
		}
	}
	if got := column(t, conn, `show enable_nestloop`)[0]; got != "off" {
		t.Errorf("after the commit enable_nestloop is %s, want off, which the application has set", got)
	}
}

// One look for all rows of a statement, and only the rows that are watched and changed ring.
func TestStatementsOfManyRows(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	exec(t, w, `insert into auditstream.watch values (2, 1), (4, 1), (12, 1)`)
	b.rings(t, w, `insert into audits (id, url) select n, 'u' from generate_series(10, 13) n`, "12")
	b.rings(t, w, `update audits set progress = case when id = 2 then progress else 50 end`, "4", "12")
	b.rings(t, w, `with a as (update audits set progress = 51 where id = 2), b as (update audits set message = 'm' where id = 4)
		delete from audits where id = 12`, "2", "4", "12")
	b.rings(t, w, `update audits set id = id + 100 where id in (2, 3)`, "2", "3", "102", "103")
	b.rings(t, w, `do $$ declare c cursor for select * from audits where id = 4 for update; begin
		for r in c loop update audits set progress = 52 where current of c; end loop; end $$`, "4")
	b.rings(t, w, `create function again() returns trigger language plpgsql as $$ begin
			if pg_trigger_depth() < 3 then update audits set progress = progress + 1 where id = 4; end if; return null; end $$;
		create trigger zz after update on audits for each statement execute function again();
		update audits set url = 'v' where id = 5; drop trigger zz on audits`, "4")
	exec(t, w, `truncate auditstream.watch; insert into auditstream.watch values (0, 1)`)
	b.rings(t, w, `insert into audits (id, url) values (20, 'u'), (21, 'u')`, "20", "21")
	b.rings(t, w, `update audits set progress = 60`)
	b.rings(t, w, `delete from audits where id = 20`)
}

// What install does of itself psql does, too: partitions are written by their own names.
func TestPsqlInstallsOnAPartitionedTable(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, user_id text, user_email text, status text, progress integer, message text,
			geo_score double precision, total_pages integer, error text) partition by range (id);
		create table audits_1 partition of audits for values from (0) to (10);
		insert into audits values (1, 'u')`)
	script, err := os.ReadFile("install.sql")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Psql(t, dsn, string(script))
	b := listen(t, dsn)
	b.rings(t, conn, `update audits_1 set progress = 2`, "1")
	b.rings(t, conn, `update audits set progress = 3`, "1")
	b.rings(t, conn, `update audits set progress = 3`)
}

// A table that has become a parent is installed anew, and what changes in its heirs' place is its own rows as before.
func TestInstallChangesTheFormOfTriggers(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	rows := func() []string {
		return column(t, conn, `select tgname::text from pg_trigger where tgname ~ '^auditstream' and tgtype & 1 = 1 order by 1`)
	}
	equal(t, "triggers for each row", rows(), []string{"auditstream_key"})
	exec(t, conn, `create table heir () inherits (audits)`)
	if plan := b.install(t, conn, sql.Options{}); plan.SQL == "" {
		t.Error("install did not notice the heir")
	}
	equal(t, "triggers for each row", rows(), []string{"auditstream_delete", "auditstream_insert", "auditstream_update"})
	b.rings(t, conn, `update audits set progress = 31`, "1")
	exec(t, conn, `drop table heir`)
	b.install(t, conn, sql.Options{})
	equal(t, "triggers for each row", rows(), []string{"auditstream_key"})
	b.rings(t, conn, `update audits set progress = 32`, "1")
}

// A type that is not PostgreSQL's own may bring a cast that would run with the function's rights.
func TestForeignTypesAreNotComparedAsTheInstaller(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create type pair as (a text, b text); create type state as enum ('running', 'FAILED');
		create function leak() returns text language sql as $$ select current_user::text $$;
		create function pair_text(pair) returns text language plpgsql as $$ begin return $1.a || current_user; end $$;
		create function state_text(state) returns text language plpgsql as $$ begin raise 'called as %', current_user; end $$;
		create table audits (id bigint primary key, status text, progress int, message pair);
		create cast (pair as text) with function pair_text(pair);
		insert into audits values (1, 'running', 1, row('a', 'b'))`)
	install(t, conn, sql.Options{})
	b := listen(t, dsn)
	b.rings(t, conn, `update audits set message = row('c', 'b')`, "1")
	if got := column(t, conn, `select (tgtype & 1)::text from pg_trigger where tgname = 'auditstream_update'`)[0]; got != "1" {
		t.Error("the update trigger compares a type of the application's with the rights of who installed")
	}
	exec(t, conn, `create table states (id bigint primary key, status state, progress int); insert into states values (1, 'running', 1)`)
	uninstall(t, conn)
	b.install(t, conn, sql.Options{Table: "states"})
	exec(t, conn, `create cast (state as text) with function state_text(state)`)
	watchAll(t, conn)
	b.rings(t, conn, `update states set status = 'FAILED'`, "1")
	b.rings(t, conn, `update states set status = 'FAILED'`) // an error in the comparison would ring
}

// A plan that a session keeps must not scan the table that has grown since: a look would cost what all that is watched does.
func TestLooksNeverScanWhatIsWatched(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	scans := func() string {
		return column(t, conn, `select seq_scan::text from pg_stat_user_tables where schemaname = 'auditstream' and relname = 'watch'`)[0]
	}
	settled := func() string {
		t.Helper()
		last := ""
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			exec(t, conn, `select pg_stat_clear_snapshot()`)
			now := scans()
			if now == last {
				return now
			}
			last = now
			exec(t, conn, `select pg_sleep(1.2)`) // sessions report once a second
		}
		return last
	}
	early := pgtest.Connect(t, dsn)
	touch := func() {
		for range 12 { // beyond the five plans that are made for a statement before one is kept
			exec(t, early, `update audits set progress = progress + 1`)
		}
	}
	touch()
	exec(t, conn, `vacuum analyze auditstream.watch`)
	exec(t, conn, `insert into auditstream.watch select n, 1 from generate_series(2, 4) n`)
	exec(t, conn, `vacuum analyze auditstream.watch`)
	touch()
	exec(t, conn, `insert into auditstream.watch select n, 1 from generate_series(5, 9000) n`)
	before := settled()
	touch()
	if got := settled(); got != before {
		t.Errorf("%s sequential scans of what is watched, want %s as before the looks", got, before)
	}
	// As after a crash, which empties the table: a plan may be made for no pages at all.
	exec(t, conn, `truncate auditstream.watch`)
	touch()
	exec(t, conn, `select auditstream.unwatch(1, null); insert into auditstream.watch select n, 1 from generate_series(2, 9000) n`)
	before = settled()
	touch()
	if got := settled(); got != before {
		t.Errorf("%s sequential scans after a crash, want %s as before the looks", got, before)
	}
}

// TestBulkUpdateHardlyNotices guards the order of magnitude; make bench has the figures.
func TestBulkUpdateHardlyNotices(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	exec(t, conn, `insert into audits (url, status, progress) select 'u', 'running', 1 from generate_series(1, 30000)`)
	w := pgtest.Connect(t, dsn)
	var with, without []float64
	for range 5 {
		for _, state := range []string{"enable", "disable"} {
			exec(t, conn, `alter table audits `+state+` trigger user`)
			exec(t, conn, `vacuum full audits`)
			began := time.Now()
			exec(t, w, `update audits set progress = (progress + 1) % 101`)
			if took := time.Since(began).Seconds(); state == "enable" {
				with = append(with, took)
			} else {
				without = append(without, took)
			}
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	if ratio := with[2] / without[2]; ratio > 2 {
		t.Errorf("an update of 30,000 rows that nobody watches takes %.2f times as long with the triggers, want less than twice", ratio)
	}
}

// TestBulkUpdateAfterASingleOne: a session keeps the plan that it made for its first statement, and one for a single row would
// compare each row with each other one.
func TestBulkUpdateAfterASingleOne(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]sql.Options{"watched": {Create: true}, "always": {Create: true, NotifyAlways: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			install(t, conn, o)
			exec(t, conn, `alter table audits set (autovacuum_enabled = off)`)
			exec(t, conn, `insert into audits (url, status, progress) select 'u', 'running', 1 from generate_series(1, 10000)`)
			exec(t, conn, `insert into auditstream.watch select n, 1 from generate_series(1, 1000) n`)
			w := pgtest.Connect(t, dsn)
			for _, level := range []string{"read committed", "repeatable read"} {
				var with, without []float64
				for range 3 {
					for _, role := range []string{"origin", "replica"} {
						exec(t, w, `set session_replication_role = `+role) // which makes plans anew, as changes of the table would
						exec(t, w, `begin isolation level `+level+`; update audits set progress = (progress + 1) % 101 where id = 1; commit`)
						began := time.Now()
						exec(t, w, `begin isolation level `+level+`; update audits set progress = (progress + 1) % 101; commit`)
						if took := time.Since(began).Seconds(); role == "origin" {
							with = append(with, took)
						} else {
							without = append(without, took)
						}
					}
				}
				slices.Sort(with)
				slices.Sort(without)
				if ratio := with[1] / without[1]; ratio > 5 {
					t.Errorf("%s: an update of 10,000 rows takes %.2f s, %.1f times as long with the triggers, want less than five times", level, with[1], ratio)
				}
			}
		})
	}
}

func BenchmarkTrigger(b *testing.B) {
	for _, rows := range []int{1, 100000} {
		for _, form := range []string{"none", "unwatched", "watched", "always"} {
			if rows > 1 && (form == "watched" || form == "always") {
				continue // that many notifications measure PostgreSQL's queue
			}
			b.Run(fmt.Sprintf("rows=%d/%s", rows, form), func(b *testing.B) {
				dsn, conn := database(b)
				install(b, conn, sql.Options{Create: true, NoTriggers: form == "none", NotifyAlways: form == "always"})
				exec(b, conn, fmt.Sprintf(`insert into audits (url, status, progress) select 'u', 'running', 1 from generate_series(1, %d)`, rows))
				exec(b, conn, `vacuum analyze audits`)
				if form == "watched" {
					exec(b, conn, `insert into auditstream.watch values (1, 1)`)
				}
				w := pgtest.Connect(b, dsn)
				exec(b, w, `set synchronous_commit = off`) // the disk's time would hide ours
				for b.Loop() {
					exec(b, w, `update audits set progress = (progress + 1) % 101`)
				}
			})
		}
	}
}
