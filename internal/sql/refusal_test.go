package sql_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

var é29 = strings.Repeat("é", 29)

func manyColumns(most int) (names string) {
	for n := range most {
		names += fmt.Sprintf(", %s%d", é29, n+1)
	}
	return names
}

// TestRefuse asserts the whole sentence, because it is all that a new user sees.
func TestRefuse(t *testing.T) {
	t.Parallel()
	const (
		table      = `create table audits (id bigint primary key, status text, progress integer)`
		noKey      = `public.audits has no column id and no primary key of one column: say which column identifies a row with --column id=NAME`
		noStatus   = `public.audits has no column status: say which column holds it, a text, an enum, an integer or a boolean, with --column status=NAME`
		noProgress = `public.audits has no column progress: say which column holds it, a number, ` +
			`with --column progress=NAME, or leave it out with --column progress=`
		number = ` must be a number (smallint, integer, bigint, real, double precision or numeric), or a text that is one; leave it out with --column `
		parts  = ` of public.audits is text, and only json and jsonb have parts; name the column alone, or one of json, or select the value in a query of your own, with --view`
	)
	type test struct {
		setup   string
		options sql.Options
		want    string
	}
	mistakes := []string{"more options than there are", "a time-out before now", "more than a name"} // of whoever wrote the options
	testkit.Each(t, map[string]test{
		"a key of bytes": {`create table audits (id bytea primary key, status text, progress integer)`, sql.Options{},
			`column id of public.audits is bytea: the id of a row must be smallint, integer, bigint, uuid, text or varchar; ` +
				`say which other column identifies a row with --column id=NAME, which can be a generated column of one of these types`},
		"no key": {`create table audits (audit integer, status text, progress integer)`, sql.Options{},
			noKey + ` (it has audit, status, progress)`},
		"a key of two columns": {`create table audits (a integer, b integer, status text, progress integer, primary key (a, b))`, sql.Options{},
			noKey + ` (it has a, b, status, progress)`},
		"no status": {`create table audits (id integer, state text, progress integer)`, sql.Options{},
			noStatus + `; perhaps state (it has id, state, progress)`},
		"no progress": {`create table audits (id integer, status text)`, sql.Options{},
			noProgress + ` (it has id, status)`},
		"all that is wrong at once": {`create table audits (n integer unique, "jobStatus" text, status_at timestamptz, pct real, failure_reason text)`,
			sql.Options{Feed: "jobs", Table: "audits", Columns: map[string]string{"error": "reason"}, Fields: []string{"status_ta", "cost=pctx/pcts"},
				Hide:  "gone",
				Words: []sql.Word{{Source: "at", Stored: "set", Shown: "x"}, {Source: "status_at", Stored: "1", Shown: "x"}}}, strings.Join([]string{
				noKey + `; perhaps n`,
				`public.audits has no column at, which --status=at names`,
				`invalid --status status_at=1=x: column status_at is timestamp with time zone, for which only the words null and set can be given: ` +
					`want status_at=set=x or status_at=null=x`,
				noStatus + `; perhaps jobStatus`,
				noProgress + `; perhaps pct`,
				`public.audits has no column reason, which --column error=reason names; perhaps failure_reason`,
				`no column of public.audits says whose a row is, so that nobody would see any: name one with ` +
					`--column user_id=, user_email= or group_id=, or let every valid token see every row with --public`,
				`public.audits has no column status_ta, which --field status_ta=status_ta names; perhaps status_at`,
				`public.audits has no column pctx, which --field cost=pctx names; perhaps pct`,
				`public.audits has no column pcts, which --field cost=pcts names; perhaps pct`,
				`public.audits has no column gone, which --hide names (it has n, jobStatus, status_at, pct, failure_reason)`}, "\n")},
		"two that are no numbers, and lookups": {`create table audits (id integer, status text, progress date, total_pages date);
			create table people (id integer, name text)`,
			sql.Options{Lookups: []string{"owner=public.people.id:nam", "id=public.people.id:nam"}}, strings.Join([]string{
				`--lookup owner=public.people.id:nam: public.audits has no column owner (it has id, status, progress, total_pages)`,
				`--lookup id=public.people.id:nam: public.people has no column nam; perhaps name (it has id, name)`,
				`column progress of public.audits is date: progress` + number + `progress=`,
				`column total_pages of public.audits is date: total_pages` + number + `total_pages=`}, "\n")},
		"1,502 columns of 62 bytes, and one of two lines": {`do $$ begin execute 'create table audits (id int primary key, "a' || chr(10) || '" text' ||
			(select string_agg(format(', %I int', repeat('é', 29) || n), '') from generate_series(1, 1500) n) || ')'; end $$`,
			sql.Options{Columns: map[string]string{"status": "a", "progress": é29 + "'1"}}, "public.audits has no column a, which --column status=a names\n" +
				"public.audits has no column " + é29 + "'1, which --column progress=" + é29 + "'1 names; perhaps " + é29 + "1 or " + é29 + "10 or " + é29 +
				`11 (it has id, "a\n"` + manyColumns(18) + `, ...)`},
		"status a timestamp": {`create table audits (id integer, status timestamptz, progress integer)`, sql.Options{},
			`column status, the status, is timestamp with time zone: only the words null and set can be given for it, ` +
				`with --status set=completed --status null=running; or name one of text, an enum, an integer or a boolean`},
		"progress a date": {`create table audits (id integer, status text, progress date)`, sql.Options{},
			`column progress of public.audits is date: progress` + number + `progress=`},
		"a path in a text": {`create table audits (id integer, status text, progress integer)`,
			sql.Options{Columns: map[string]string{"message": "status.words"}},
			`--column message=status.words: column status` + parts},
		"an owner in a text": {`create table audits (id integer, status text, progress integer, kwargs text)`,
			sql.Options{Columns: map[string]string{"user_id": "kwargs.user_id"}},
			`--column user_id=kwargs.user_id: column kwargs` + parts},
		"two names in a text": {`create table audits (id integer, status text, progress integer)`,
			sql.Options{Columns: map[string]string{"progress": "status.a.b"}},
			`invalid --column progress=status.a.b: column status is text, of which a number is found by one name alone: want status.NAME`},
		"a status that is a number": {`create table audits (id integer, status text, progress integer)`,
			sql.Options{Columns: map[string]string{"status": "100-progress"}},
			`invalid --column status=100-progress: a status is a word, not a number that is calculated; name the column that holds it`},
		"words of a timestamp": {`create table audits (id integer, status text, progress integer, at timestamptz)`,
			sql.Options{Words: []sql.Word{{Source: "at", Stored: "2026", Shown: "completed"}}},
			`invalid --status at=2026=completed: column at is timestamp with time zone, for which only the words null and set can be given: ` +
				`want at=set=completed or at=null=completed`},
		"words of no column": {`create table audits (id integer, status text, progress integer)`,
			sql.Options{Words: []sql.Word{{Source: "at", Stored: "set", Shown: "completed"}}},
			`public.audits has no column at, which --status=at names (it has id, status, progress)`},
		"total_pages json": {`create table audits (id integer, status text, progress integer, total_pages json)`, sql.Options{},
			`column total_pages of public.audits is json: total_pages` + number + `total_pages=`},
		"a type that only looks built in": {`create domain public.money2 as money; create table audits (id integer, status text, progress money2)`,
			sql.Options{},
			`column progress of public.audits is public.money2: progress` + number + `progress=`},
		"mapped to nothing": {table, sql.Options{Columns: map[string]string{"error": "reason"}},
			`public.audits has no column reason, which --column error=reason names (it has id, status, progress)`},
		"a view": {table + `; create view v as table audits`, sql.Options{Table: "v"},
			`public.v cannot be adopted: it is a view: name the table that it reads`},
		"a materialized view": {table + `; create materialized view v as table audits`, sql.Options{Table: "v"},
			`public.v cannot be adopted: it is a materialized view: name the table that it reads`},
		"a foreign table": {`create foreign data wrapper w; create server s foreign data wrapper w; create foreign table f (id integer) server s`,
			sql.Options{Table: "f"},
			`public.f cannot be adopted: it is a foreign table: its changes are made elsewhere and fire no triggers`},
		"an index": {table, sql.Options{Table: "audits_pkey"}, `public.audits_pkey cannot be adopted: it is an index, not a table`},
		"a temporary table": {`create temporary table audits (id integer primary key, status text, progress integer)`, sql.Options{Table: "audits"},
			`pg_temp.audits cannot be adopted: it is a temporary table: nobody else can see its rows`},
		"a system table": {``, sql.Options{Table: "pg_catalog.pg_class"},
			`pg_catalog.pg_class cannot be adopted: it is part of the system: name a table of your application`},
		"no such schema to create in": {``, sql.Options{Table: "app.audits", Create: true},
			`there is no schema app to create the table audits in: create it first, with: create schema "app"`},
		"no such role": {table, sql.Options{Role: "No Such Role"},
			`there is no role No Such Role: create it first, with: create role "No Such Role" login password '...'`},
		"a view written by hand": {table + `; create schema auditstream; create view auditstream.progress as select 1 as audit_id`, sql.Options{},
			`auditstream.progress exists and was not made by install, so it is left alone: drop it, or keep it and do not install`},
		"more options than there are": {table, sql.Options{Columns: map[string]string{"colour": "x", "status": "", "id": ""}},
			`--column colour=x: there is no column "colour" to map; it can be ` +
				"id, group_id, user_id, user_email, status, progress, message, geo_score, total_pages, error\n" +
				"--column id=: the column id cannot be left out; name the column of your table that holds it\n" +
				`--column status=: the column status cannot be left out; name the column of your table that holds it`},
		"a time-out before now": {table, sql.Options{LockWait: -1},
			`invalid lock time-outs 0s (one attempt) and -1ns (in all): want durations of 0 or more`},
		"more than a name": {table, sql.Options{Table: "a; drop table b", Create: true},
			`a; drop table b is not the name of a table; write it as in SQL: audits, public.audits, "My Schema"."Audit Log"`},
		"no such table": {`create schema app; create table app.jobs (id integer, status text, progress integer);
			create table "Work" (status text, progress integer); create table other (status text); create table app."Audit" (status text)`,
			sql.Options{Table: "audits"},
			`there is no table audits in the database HERE: name yours with --table, or let --create make it; perhaps app."Audit"; ` +
				`these have columns status and progress: app.jobs, public."Work"`},
	}, func(t *testing.T, name string, test test) {
		_, conn := database(t)
		here := column(t, conn, `select current_database()`)[0]
		exec(t, conn, test.setup)
		before := catalog(t, conn)
		for _, run := range []operation{sql.PlanInstall, sql.Install} {
			_, err := run(t.Context(), conn, test.options)
			if err == nil {
				t.Fatalf("no error, want %s", test.want)
			}
			testkit.Equal(t, temporary.ReplaceAllString(strings.ReplaceAll(err.Error(), here, "HERE"), "pg_temp"), test.want, "refusal")
			if usage := new(sql.UsageError); errors.As(err, usage) != slices.Contains(mistakes, name) {
				t.Errorf("%v is a mistake in the options: %v", err, !slices.Contains(mistakes, name))
			}
		}
		equal(t, "catalog", catalog(t, conn), before)
	})
}

// What a lookup cannot do, a query of one's own can, and no refusal said so.
func TestRefusedLookupsNameTheView(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table users (id int primary key, account_id int, payload jsonb, name text, code text collate "C" unique);
		create table jobs (id int primary key, owner int, code text, status text, progress int)`)
	const way = `select the owner in a query of your own, with --view`
	for lookup, want := range map[string]string{
		"owner=public.users.account_id:name": `nothing makes account_id of public.users unique, so that a row could have several owners: ` +
			`name a column with a primary key or a unique constraint of its own, or ` + way,
		"code=public.users.id:name":   `id is integer and code is text: both must be integers, both uuids, or both texts; name columns that are, or ` + way,
		"code=public.users.code:name": `code and code have different collations, which PostgreSQL cannot compare: name columns with the same collation, or ` + way,
	} {
		refused(t, sql.PlanInstall, conn, sql.Options{Feed: "jobs", Columns: map[string]string{"user_id": "owner"}, Lookups: []string{lookup}},
			"--lookup "+lookup+": "+want)
	}
}

func TestFailureInTheMiddleLeavesNothing(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer);
		create function refuse() returns event_trigger language plpgsql as $$ begin raise 'no triggers here'; end $$;
		create event trigger refuse on ddl_command_end when tag in ('CREATE TRIGGER') execute function refuse()`)
	before := catalog(t, conn)
	refused(t, sql.Install, conn, sql.Options{}, `install: nothing was changed: ERROR: no triggers here (SQLSTATE P0001)`)
	equal(t, "catalog", catalog(t, conn), before)
	// The connection is as it was.
	equal(t, "search_path", column(t, conn, `show search_path`), []string{`"$user", public`})
	exec(t, conn, `drop event trigger refuse`)
	install(t, conn, sql.Options{})
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner := role(t, dsn)
	exec(t, conn, `create table audits (id integer, status text, progress integer); create table more () inherits (audits);
		alter table audits enable row level security; grant all on audits to `+owner+`; grant create on schema public to `+owner+`;
		set role `+owner)
	plan := planned(t, conn, sql.Options{})
	equal(t, "warnings", warnings(plan), []string{
		`no index of public.audits begins with id: every read scans the whole table; create index concurrently on "public"."audits" ("id")`,
		`nothing makes id unique in public.audits: of several rows with one id viewers see any`,
		`tables inherit from public.audits: their rows are shown, but their changes notify nobody and are found by the safety net`,
		`row level security of public.audits applies to the role that installs: rows it cannot see are hidden from every viewer`,
		`no column of public.audits says whose a row is, so that nobody sees any: name one with --column user_id=, user_email= ` +
			`or group_id=, or let every valid token see every row with --public`,
		`the role ` + owner + ` may not create the schema auditstream: let the owner of the database run: grant create on database "` +
			column(t, conn, `select current_database()`)[0] + `" to "` + owner + `"`,
	})
}

// A field called user_id was refused with a list of names that did not have it.
func TestRefusedFieldIsInTheList(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id int primary key, user_id text, group_id text, audit_id int, status text, progress int)`)
	for _, name := range []string{"id", "audit_id", "group_id", "user_id", "user_email", "error"} {
		refused(t, sql.PlanInstall, conn, sql.Options{Feed: "jobs", Fields: []string{name}}, "--field "+name+": give NAME or NAME=SOURCE, NAME of letters, digits and _, "+
			"and none of ours (id, audit_id, group_id, user_id, user_email, status, progress, message, geo_score, total_pages, error)")
	}
}
