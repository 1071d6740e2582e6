package sql_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// A condition and the function that TRUNCATE calls leave the application's settings alone.
func TestSearchPathIsTheApplicationsAgain(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	want := func(path string) {
		t.Helper()
		testkit.Equal(t, column(t, conn, `show search_path`)[0], path, "search_path")
	}
	exec(t, conn, `create schema app; set search_path = app, public`)
	b.notifies(t, conn, `update audits set progress = 20`, "1")
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
	exec(t, conn, `alter table audits rename column message to text`)
	_ = b.heard(t, conn)
	exec(t, conn, `begin; update audits set progress = 26`)
	want("app, public")
	b.notifies(t, conn, `commit`, "1")
	exec(t, conn, `begin; truncate audits`)
	want("app, public")
	b.notifies(t, conn, `commit`, "*")
	want("app, public")
}

// The trigger decides for each row, and only watched rows notify, however many rows a statement changes.
func TestStatementsOfManyRows(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	w := pgtest.Connect(t, dsn)
	b.watch(t, 2, 4, 12)
	b.notifies(t, w, `insert into audits (id, url) select n, 'u' from generate_series(10, 13) n`)
	b.notifies(t, w, `update audits set progress = case when id = 2 then progress else 50 end`, "2", "4", "12")
	b.notifies(t, w, `with a as (update audits set progress = 51 where id = 2), b as (update audits set message = 'm' where id = 4)
		delete from audits where id = 12`, "2", "4", "12")
	b.notifies(t, w, `update audits set id = id + 100 where id in (2, 3)`, "2")
	b.notifies(t, w, `do $$ declare c cursor for select * from audits where id = 4 for update; begin
		for r in c loop update audits set progress = 52 where current of c; end loop; end $$`, "4")
	b.notifies(t, w, `create function again() returns trigger language plpgsql as $$ begin
			if pg_trigger_depth() < 3 then update audits set progress = progress + 1 where id = 4; end if; return null; end $$;
		create trigger zz after update on audits for each statement execute function again();
		update audits set url = 'v' where id = 5; drop trigger zz on audits`, "4")
	b.unwatch(t)
	b.watchNew(t)
	b.notifies(t, w, `insert into audits (id, url) values (20, 'u'), (21, 'u')`, "20", "21")
	b.notifies(t, w, `update audits set progress = 60`)
	b.notifies(t, w, `delete from audits where id = 20`)
}

// What install does of itself psql does, too: partitions are written by their own names.
func TestPsqlInstallsOnAPartitionedTable(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, user_id text, user_email text, status text, progress integer, message text,
			geo_score double precision, total_pages integer, error text) partition by range (id);
		create table audits_1 partition of audits for values from (0) to (10);
		insert into audits values (1, 'u')`)
	pgtest.Psql(t, dsn, file(t, "install.sql"))
	b := listen(t, dsn)
	b.notifies(t, conn, `update audits_1 set progress = 2`, "1")
	b.notifies(t, conn, `update audits set progress = 3`, "1")
	b.notifies(t, conn, `delete from audits`, "1")
}

// A table that has become a parent has nothing to install anew: what changes in its children is found by the safety net.
func TestChildTablesRingNothing(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	b := listen(t, dsn)
	exec(t, conn, `create table child () inherits (audits)`)
	if plan := b.install(t, conn, sql.Options{}); plan.SQL != "" {
		t.Errorf("install wants to run because of a child:\n%s", plan.SQL)
	}
	b.notifies(t, conn, `insert into child (id, url, progress) values (7, 'u', 3)`)
	b.notifies(t, conn, `update audits set progress = 31`, "1")
	b.notifies(t, conn, `delete from child`)
	exec(t, conn, `drop table child`)
	b.notifies(t, conn, `update audits set progress = 32`, "1")
}

// TestBulkUpdate guards the order of magnitude, whether none, some or all of the rows notify; make bench has the figures.
func TestBulkUpdate(t *testing.T) {
	t.Parallel()
	type bulk struct {
		o             sql.Options
		rows, watched int64
		most          float64 // times as long as without the triggers
	}
	testkit.Each(t, map[string]bulk{
		"unwatched": {sql.Options{Create: true}, 30000, 0, 2},
		"watched":   {sql.Options{Create: true}, 10000, 1000, 5},
		"always":    {sql.Options{Create: true, NotifyAlways: true}, 10000, 0, 5},
	}, func(t *testing.T, _ string, bulk bulk) {
		dsn, conn := database(t)
		install(t, conn, bulk.o)
		exec(t, conn, fmt.Sprintf(`insert into audits (url, status, progress) select 'u', 'running', 1 from generate_series(1, %d)`, bulk.rows))
		b := listener{pgtest.Connect(t, dsn)}
		for id := range bulk.watched {
			b.watch(t, id+1)
		}
		w := pgtest.Connect(t, dsn)
		for _, level := range []string{"read committed", "repeatable read"} {
			// The quickest of many tells what the work is: other tests make single ones slower.
			with, without := math.Inf(1), math.Inf(1)
			for round := 0; round < 5 || round < 15 && with > bulk.most*without; round++ {
				for _, role := range []string{"origin", "replica"} {
					exec(t, conn, `vacuum full audits`)
					exec(t, w, `set session_replication_role = `+role)
					began := time.Now()
					exec(t, w, `begin isolation level `+level+`; update audits set progress = (progress + 1) % 101; commit`)
					if took := time.Since(began).Seconds(); role == "origin" {
						with = min(with, took)
					} else {
						without = min(without, took)
					}
				}
			}
			if ratio := with / without; ratio > bulk.most {
				t.Errorf("%s: an update of %d rows takes %.2f s, %.1f times as long with the triggers, want less than %v", level, bulk.rows, with,
					ratio, bulk.most)
			}
		}
	})
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
					listener{pgtest.Connect(b, dsn)}.watch(b, 1)
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

// PostgreSQL requires of a role that makes a partition the right to execute the functions of the copied triggers. The application's migrations
// must not fail because of it, whatever the database's default privileges are.
func TestOwnerOfAPartitionedTableStillMakesPartitions(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner, other := role(t, dsn), role(t, dsn)
	exec(t, conn, `alter default privileges revoke execute on functions from public;
		create table audits (id bigint primary key, status text, progress integer) partition by range (id);
		create table audits_1 partition of audits for values from (0) to (10);
		grant create on schema public to `+owner+`, `+other+`; alter table audits owner to `+owner)
	install(t, conn, sql.Options{})
	b := listen(t, dsn)
	exec(t, conn, `set role `+owner)
	b.notifies(t, conn, `create table audits_2 partition of audits for values from (10) to (20); insert into audits values (11, 'running', 1)`, "11")
	exec(t, conn, `reset role; alter table audits owner to `+other+`; set role `+other)
	b.notifies(t, conn, `create table audits_3 partition of audits for values from (20) to (30); insert into audits values (21, 'running', 1)`, "21")
	exec(t, conn, `reset role`)
	unchanged(t, conn, sql.Options{}) // nor is a new owner a reason
	exec(t, conn, `alter default privileges grant execute on functions to public`)
}

// A row without a key was announced by an empty payload, whoever watched.
func TestRowWithoutAKeyIsNotAnnounced(t *testing.T) {
	t.Parallel()
	for _, always := range []bool{false, true} {
		dsn, conn := database(t)
		exec(t, conn, `create table audits (id integer unique, user_id text, status text, progress integer);
			insert into audits values (null, 'u', 'x', 1), (3, 'u', 'x', 1)`)
		install(t, conn, sql.Options{NotifyAlways: always})
		b := listen(t, dsn)
		b.notifies(t, conn, `insert into audits values (null, 'u', 'x', 1)`)
		b.notifies(t, conn, `update audits set user_id = 'v' where id is null`)
		b.notifies(t, conn, `update audits set id = 1 where ctid = (select min(ctid) from audits where id is null)`, "1")
		b.notifies(t, conn, `update audits set id = null where id = 3`, "3")
		b.notifies(t, conn, `delete from audits where id is null`)
	}
}
