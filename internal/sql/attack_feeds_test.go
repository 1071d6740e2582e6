package sql_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// mallory owns a schema, a table and what she installs there; a superuser installs later.
func mallory(t *testing.T) (dsn string, admin, hers *pgx.Conn, name string) {
	t.Helper()
	dsn, admin = database(t)
	name = installer(t, dsn)
	exec(t, admin, `create schema mine authorization `+name+`; create table public.ran (by text); grant insert on public.ran to public`)
	hers = pgtest.Connect(t, dsn)
	exec(t, hers, `set session authorization `+name+`;
		create function mine.evil() returns boolean language plpgsql as $$ begin insert into public.ran values (current_user); return true; end $$`)
	return dsn, admin, hers, name
}

// bob owns her table by now, so that the superuser takes over her objects.
func takenOver(t *testing.T, dsn string, admin *pgx.Conn, table string, o sql.Options) {
	t.Helper()
	exec(t, admin, `alter table `+table+` owner to `+role(t, dsn))
	install(t, admin, o)
}

func TestS2TakenOverFunctionsHaveNoRightsOfASuperuser(t *testing.T) {
	t.Parallel()
	dsn, admin, hers, name := mallory(t)
	o := sql.Options{Feed: "jobs", Table: "mine.imports", Create: true}
	install(t, hers, o)
	exec(t, hers, strings.ReplaceAll(`grant usage on schema auditstream to public;
		create function auditstream.report(integer) returns void EVIL;
		create or replace function auditstream.report(key text, progress double precision, message text default null, status text default null,
			user_id text default null, user_email text default null) returns void EVIL;
		create or replace function auditstream.changed() returns trigger EVIL`,
		"EVIL", `security definer language plpgsql as $$ begin insert into public.ran values (current_user); end $$`))
	exec(t, admin, `alter table mine.imports owner to `+role(t, dsn))
	refusedWith(t, sql.Install, admin, o, "or something in it belongs to "+name)
	exec(t, admin, `drop function auditstream.report(integer)`)
	install(t, admin, o)
	equal(t, "functions with a superuser's rights", column(t, admin, `select p.oid::regprocedure::text
		from pg_proc p join pg_roles r on r.oid = p.proowner where pronamespace = 'auditstream'::regnamespace and prosecdef and rolsuper`), nil)
	exec(t, admin, `select auditstream.report('x', 1, user_id => 'a')`)
	equal(t, "run", column(t, admin, `select by from public.ran`), nil)
	undrifted(t, dsn, "")
}

func TestS2TakenOverViewsHaveNoRulesOfStrangers(t *testing.T) {
	t.Parallel()
	dsn, admin, hers, name := mallory(t)
	exec(t, hers, `create table mine.audits (id bigint primary key, status text, progress int, user_id text)`)
	o := sql.Options{Table: "mine.audits"}
	install(t, hers, o)
	exec(t, hers, `create rule r as on insert to auditstream.feeds do instead insert into public.ran values (current_user);
		create rule r as on insert to auditstream.progress do instead insert into public.ran values (current_user);
		grant insert on auditstream.feeds, auditstream.progress to public; grant usage, create on schema auditstream to public`)
	takenOver(t, dsn, admin, "mine.audits", o)
	equal(t, "rules", column(t, admin, `select rulename::text from pg_rules where schemaname = 'auditstream'`), nil)
	equal(t, "rights", column(t, admin, `select privilege_type from (select c.relacl as acl from pg_class c
			where c.relnamespace = 'auditstream'::regnamespace union all select nspacl from pg_namespace where nspname = 'auditstream') c, aclexplode(acl) x
		where x.grantee in (0, '`+name+`'::regrole) and privilege_type not in ('SELECT', 'USAGE')`), nil)
	undrifted(t, dsn, "")
}

// Her lookups and rings would run with the superuser's rights.
func TestS2KeptLookupsOfAStrangerAreRefused(t *testing.T) {
	t.Parallel()
	_, admin, hers, _ := mallory(t)
	exec(t, admin, `create schema private; create table private.secrets (id int primary key, content text)`)
	exec(t, hers, `create table mine.jobs (id bigint primary key, status text, progress int, user_id text, k int)`)
	install(t, hers, sql.Options{Feed: "jobs", Table: "mine.jobs"})
	for _, kept := range []string{`{"lookups": ["k=private.secrets.id:content"]}`, `{"rings": ["private.secrets=id"]}`} {
		exec(t, hers, `update auditstream.choices set options = options - 'lookups' - 'rings' || '`+kept+`'`)
		refusedWith(t, sql.Install, admin, sql.Options{Feed: "jobs", Table: "mine.jobs"}, "give them again")
	}
	install(t, admin, sql.Options{Feed: "jobs", Table: "mine.jobs", Lookups: []string{}, Rings: []string{}})
}

// While an install waits for a table, its owner gives its name to a view.
func TestS2TableThatBecomesAViewMeanwhileIsNotRead(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{"jobs", "users"}, func(t *testing.T, table string) {
		dsn, admin, hers, _ := mallory(t)
		exec(t, hers, `create table mine.users (id bigint primary key, uid text);
			create table mine.jobs (id bigint primary key, status text, progress int, user_id bigint); insert into mine.jobs values (1, 'x', 1, 1)`)
		exec(t, hers, strings.ReplaceAll(`begin; alter table mine.TABLE rename to was; create view mine.TABLE as select * from mine.was where mine.evil()`,
			"TABLE", table))
		o := sql.Options{Feed: "jobs", Table: "mine.jobs", Lookups: []string{"user_id=mine.users.id:uid"}, LockTimeout: 20 * time.Second}
		done := make(chan error, 1)
		go func() {
			_, err := sql.Install(t.Context(), admin, o)
			done <- err
		}()
		watch := pgtest.Connect(t, dsn)
		const waiting = `select count(*)::text from pg_locks join pg_database d on d.oid = database where not granted and datname = current_database()`
		for column(t, watch, waiting)[0] == "0" {
		}
		exec(t, hers, `commit`)
		if err := <-done; err == nil || !strings.Contains(err.Error(), "than a moment ago") && !strings.Contains(err.Error(), "a view") {
			t.Errorf("got %v", err)
		}
		equal(t, "run", column(t, watch, `select by from public.ran`), nil)
		equal(t, "installed", column(t, watch, `select nspname::text from pg_namespace where nspname = 'auditstream'`), nil)
	})
}

// Any role may have a table of its own with a trigger that has the name of one of ours.
func TestTemporaryTriggersOfOthersStopNoInstall(t *testing.T) {
	t.Parallel()
	dsn, admin, hers, name := mallory(t)
	exec(t, admin, `create table audits (id bigint primary key, status text, progress int)`)
	exec(t, hers, `create table pg_temp.zz (id int); create function pg_temp.changed() returns trigger language plpgsql as $$ begin return null; end $$;
		create trigger auditstream_insert after insert on pg_temp.zz execute function pg_temp.changed()`)
	install(t, admin, sql.Options{})
	// A role that has USAGE on our schema may also use our function, which everybody may execute.
	exec(t, admin, `grant usage on schema auditstream to `+name)
	exec(t, hers, `create trigger auditstream_update after update on pg_temp.zz for each row execute function auditstream.changed()`)
	unchanged(t, admin, sql.Options{})
	undrifted(t, dsn, "")
	exec(t, hers, `drop table pg_temp.zz`)
	uninstall(t, admin)
	// Nor does a schema that looks like ours.
	exec(t, hers, `create view mine.progress as select 1; create table mine.zz (id int);
		create function mine.changed() returns trigger language plpgsql as $$ begin return null; end $$;
		create trigger auditstream_insert after insert on mine.zz execute function mine.changed()`)
	install(t, admin, sql.Options{})
	uninstall(t, admin)
}

// The regular expressions took seconds for a megabyte of escapes, and so did everybody's reads.
func TestLongJSONIsReadInTime(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id bigint primary key, status text, meta json, plain text, user_id text);
		insert into jobs select n, 'running', json_build_object('done', 1, 'total', 2, 'x', x), '{"done": 1, "x": "' || repeat(y, 3000000), 'a'
			from (values (1, repeat('\', 1500000), ' '), (2, chr(1) || repeat('\', 1500000), ' '), (3, repeat('b', 3000000), 'b')) v (n, x, y)`)
	install(t, conn, sql.Options{Feed: "jobs", Table: "jobs", Columns: map[string]string{"progress": "meta.done/meta.total", "message": "meta"},
		Fields: []string{"meta.x"}})
	install(t, conn, sql.Options{Feed: "plain", Table: "jobs", Columns: map[string]string{"progress": "plain.done"}})
	read := func(id int) (string, time.Duration) {
		start := time.Now()
		return column(t, conn, fmt.Sprintf(`select concat_ws(' ', a.progress, length(a.message) > 1500000, length(a.fields) > 1500000, b.progress)
			from auditstream.progress_jobs a join auditstream.progress_plain b using (id) where id = %d`, id))[0], time.Since(start)
	}
	// Compared with as much text without escapes, the best of several: the machine may pause in any one of them.
	best := map[int]time.Duration{}
	for range 5 {
		for id, want := range map[int]string{1: "50 t t 1", 2: "0 t f 1", 3: "50 t t 1"} {
			got, took := read(id)
			if got != want {
				t.Errorf("row %d: got %s, want %s", id, got, want)
			}
			best[id] = min(took, cmp.Or(best[id], took))
		}
	}
	if t.Logf("%v", best); best[1] > 10*best[3] || best[2] > 10*best[3] {
		t.Errorf("a megabyte of escapes takes %v and %v, of letters %v", best[1], best[2], best[3])
	}
}

// Up to PostgreSQL 15 the owner of an empty table may turn it into a view, below our view.
func TestLookupThatBecameAViewIsFound(t *testing.T) {
	t.Parallel()
	_, admin, hers, _ := mallory(t)
	exec(t, hers, `create table mine.jobs (id bigint primary key, status text, progress int, user_id int);
		create table mine.users (id int primary key, uid text)`)
	install(t, admin, sql.Options{Feed: "jobs", Table: "mine.jobs", Lookups: []string{"user_id=mine.users.id:uid"}})
	const becomeView = `create rule "_RETURN" as on select to mine.users do instead select 1 as id, current_user::text as uid`
	if version := column(t, admin, `select current_setting('server_version_num')`)[0]; version >= "160000" {
		if _, err := hers.Exec(t.Context(), becomeView); err == nil {
			t.Error("a table has become a view")
		}
		return
	}
	exec(t, hers, `alter table mine.users drop constraint users_pkey`)
	exec(t, hers, `vacuum mine.users`) // which notes that it has no index any more
	exec(t, hers, becomeView)
	d, err := sql.Compare(t.Context(), admin)
	if err != nil || !slices.ContainsFunc(d.Findings, func(f sql.Finding) bool {
		return f.Feed == "jobs" && f.Kind == "table" && f.Stale && strings.Contains(f.Text, "mine.users is a view now")
	}) {
		t.Errorf("found %+v, %v", d.Findings, err)
	}
}
