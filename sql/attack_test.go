package sql_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"auditstream/integration/pgtest"
	"auditstream/sql"

	"github.com/jackc/pgx/v5"
)

// The findings S1 to S3 of an outside hunt, as attacks. Somebody's code that runs says as whom in the table public.called: what is
// written there must be the attacker's name, or nothing.

// ran makes that table, and returns a query of who ran an attacker's code that was somebody else.
func ran(tb testing.TB, conn *pgx.Conn) {
	tb.Helper()
	exec(tb, conn, `create table public.called (who text, session text, what text); grant insert on public.called to public; grant create on schema public to public`)
}

func others(tb testing.TB, conn *pgx.Conn, attacker string) []string {
	tb.Helper()
	return column(tb, conn, `select distinct concat_ws(' ', what, 'as', who, 'in a session of', session) from public.called where who <> $1 or session <> $1`, attacker)
}

// evil is a type of a schema of the attacker's with every hook that a role without rights can make: casts to and from whatever is
// ours, implicit and not, operators of all the names that we use, and functions of the names that we call.
func evil(schema string) string {
	var s strings.Builder
	fmt.Fprintf(&s, `create schema if not exists %[1]s; create type %[1]s.evil as enum ('1', 'running', 'failed'); create type %[1]s.pair as (a text, b %[1]s.evil);
		create function %[1]s.call(what text) returns void language plpgsql as $$ begin insert into public.called values (current_user, session_user, what); end $$;
		create function %[1]s.truth() returns boolean language plpgsql volatile as $$ begin perform %[1]s.call('domain'); return true; end $$;
		create domain %[1]s.checked as text check (%[1]s.truth()); create domain %[1]s.checked_key as bigint check (%[1]s.truth());
		create domain %[1]s.over as %[1]s.evil check (%[1]s.truth()); grant usage on schema %[1]s to public;`, schema)
	for _, of := range []string{"evil", "pair"} {
		for _, to := range []string{"text", "bigint", "integer", "double precision", "boolean", "json", "name"} {
			f := strings.ReplaceAll(of+"_"+to, " ", "_")
			fmt.Fprintf(&s, `create function %[1]s.%[2]s(%[1]s.%[3]s) returns %[4]s language plpgsql as $$ begin perform %[1]s.call('cast of %[3]s to %[4]s');
				return null; end $$; create cast (%[1]s.%[3]s as %[4]s) with function %[1]s.%[2]s as implicit;`, schema, f, of, to)
		}
		for _, op := range []string{"=", "<>", "<", ">", "<=", ">=", "&"} {
			returns := "boolean"
			if op == "&" {
				returns = "integer"
			}
			f := fmt.Sprintf("%s_op_%x", of, op)
			fmt.Fprintf(&s, `create function %[1]s.%[2]s(%[1]s.%[3]s, %[1]s.%[3]s) returns %[5]s language plpgsql as $$ begin perform %[1]s.call('operator %[4]s');
				return null; end $$; create operator %[1]s.%[4]s (leftarg = %[1]s.%[3]s, rightarg = %[1]s.%[3]s, function = %[1]s.%[2]s);`, schema, f, of, op, returns)
		}
	}
	for _, f := range []string{"pg_notify(text, text)", "lower(text)", "format(text, text)", "hashint8(bigint)", "pg_try_advisory_lock(integer, integer)",
		"pg_advisory_unlock(integer, integer)", "int4and(integer, integer)", "int8eq(bigint, bigint)"} {
		name, _, _ := strings.Cut(f, "(")
		fmt.Fprintf(&s, `create function %s.%s returns boolean language plpgsql as $$ begin perform %[1]s.call('%[3]s'); return true; end $$;`, schema, f, name)
	}
	for _, types := range []string{"bigint, bigint", "integer, integer", "text, text"} {
		left, right, _ := strings.Cut(types, ", ")
		fmt.Fprintf(&s, `create function %[1]s.any_op(%[2]s) returns boolean language plpgsql as $$ begin perform %[1]s.call('operator of %[2]s'); return true; end $$;
			create function %[1]s.any_and(%[2]s) returns integer language plpgsql as $$ begin perform %[1]s.call('& of %[2]s'); return 1; end $$;`, schema, types)
		for _, op := range []string{"=", "<>", "<", ">", "&", "~~", "||"} {
			function := map[bool]string{true: "any_and", false: "any_op"}[op == "&"]
			fmt.Fprintf(&s, `create operator %[1]s.%[2]s (leftarg = %[3]s, rightarg = %[4]s, function = %[1]s.%[5]s);`, schema, op, left, right, function)
		}
	}
	return s.String()
}

// as runs a script as a role, in a session of the role's own, and returns the server's error.
func as(tb testing.TB, dsn, name, script string) error {
	tb.Helper()
	conn := pgtest.Connect(tb, dsn)
	exec(tb, conn, `set session authorization `+name)
	_, err := conn.PgConn().Exec(tb.Context(), script).ReadAll()
	_ = conn.Close(tb.Context()) // and what was temporary is gone
	return err
}

// A role's own type, whose cast to text is the role's own code, in a table of its own that calls our trigger function.
const becomeInstaller = `
	create type pg_temp.evil as enum ('1');
	create function pg_temp.run(pg_temp.evil) returns text language plpgsql as $$ begin
		execute format('alter role %%I superuser', session_user); return '1'; end $$;
	create cast (pg_temp.evil as text) with function pg_temp.run(pg_temp.evil) as implicit;
	create temporary table bait (id pg_temp.evil);
	create trigger bait after insert or update or delete on bait for each row execute function auditstream.%[1]s();
	create trigger bait2 after truncate on bait for each statement execute function auditstream.%[1]s();
	insert into bait values ('1'); update bait set id = '1'; delete from bait; truncate bait;`

// S1: whoever could name the trigger function became the superuser who had installed it.
func TestS1ServingRoleDoesNotBecomeTheInstaller(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("install.sql")
	if err != nil {
		t.Fatal(err)
	}
	for version := 0; version <= sql.SchemaVersion; version++ { // 0: nothing was installed before
		for _, way := range []string{"install", "psql"} {
			t.Run(fmt.Sprint(version, way), func(t *testing.T) {
				t.Parallel()
				dsn, conn := database(t)
				server, granted, owner, writer, nobody := role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn)
				superusers := func() []string {
					return column(t, conn, `select rolname::text from pg_roles where rolsuper and rolname = any ($1)`, []string{server, granted, owner, writer, nobody})
				}
				if version > 0 {
					old(t, dsn, version)
					function := map[bool]string{true: "changed", false: "notify_change"}[version >= 5]
					// What somebody has granted by name is as open as what PUBLIC has.
					exec(t, conn, `grant usage on schema auditstream to `+server+`, `+granted+`; grant all on function auditstream.`+function+`() to `+granted+`, `+server+` with grant option`)
					if version == 3 || version == 4 {
						if err := as(t, dsn, granted, fmt.Sprintf(becomeInstaller, "notify_change")); err != nil || len(superusers()) != 1 {
							t.Fatalf("against version %d the attack does nothing, so it proves nothing: %v", version, err)
						}
						exec(t, conn, `alter role `+granted+` nosuperuser`)
					}
				} else {
					exec(t, conn, `alter default privileges grant all on functions to `+granted+`; alter default privileges grant all on tables to `+granted)
				}
				if way == "install" {
					install(t, conn, sql.Options{Create: true, Role: server})
				} else {
					if version == 0 {
						table, err := os.ReadFile("audits.sql")
						if err != nil {
							t.Fatal(err)
						}
						pgtest.Psql(t, dsn, string(table))
					}
					pgtest.Psql(t, dsn, string(script))
				}
				exec(t, conn, `grant usage on schema auditstream to `+server+`, `+granted+`, `+owner+`, `+writer+`; alter table audits owner to `+owner+`;
					grant all on audits to `+writer)
				for _, name := range []string{server, granted, owner, writer, nobody} {
					for _, function := range []string{"changed", "notify_change", "prepare_watch"} {
						err := as(t, dsn, name, fmt.Sprintf(becomeInstaller, function))
						if got := superusers(); err == nil && function != "changed" || len(got) > 0 {
							t.Errorf("%s through %s: superusers %q, error %v", name, function, got, err)
						}
					}
				}
				equal(t, "functions that run with somebody else's rights", column(t, conn, `select p.oid::regprocedure::text from pg_proc p
					where pronamespace = 'auditstream'::regnamespace and (prosecdef or proname <> 'changed')`), nil)
			})
		}
	}
}

// S2: a column of a type whose cast is the owner's code, read, compared or announced, ran it as the installer.
func TestS2TypesOfOthersRunNothing(t *testing.T) {
	t.Parallel()
	for name, columns := range map[string]string{
		"an enum":               `id bigint primary key, status mine.evil, progress int, message mine.evil, error mine.evil, user_id mine.evil, user_email mine.evil`,
		"a row":                 `id bigint primary key, status text, progress int, message mine.pair, error mine.pair, user_id mine.pair`,
		"domains":               `id mine.checked_key primary key, status mine.checked, progress int, message mine.over, error mine.checked, user_id mine.over`,
		"arrays":                `id bigint primary key, status text, progress int, message mine.evil[], error mine.pair[], user_id mine.over[]`,
		"partitions of an enum": `id bigint primary key, status mine.evil, progress int, message mine.pair) partition by range (id`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			ran(t, conn)
			owner, reader, writer, nobody := role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn)
			exec(t, conn, `grant create on schema public to `+owner+`; do $$ begin execute format('grant create on database %I to `+owner+`', current_database()); end $$`)
			script := evil("mine") + `create table public.audits (` + columns + `);`
			if strings.Contains(columns, "partition") {
				script += `create table public.audits_1 partition of public.audits for values from (0) to (10); create table public.audits_2 partition of public.audits for values from (10) to (20);`
			}
			if err := as(t, dsn, owner, script+`grant all on public.audits to `+writer+`; grant usage on schema mine to `+writer); err != nil {
				t.Fatal(err)
			}
			exec(t, conn, `set search_path = mine, public, pg_catalog`)
			install(t, conn, sql.Options{Table: "public.audits", Role: reader})
			b := listen(t, dsn)
			write := `insert into public.audits (id, progress) values (1, 1), (2, 1); update public.audits set progress = 2; update public.audits set id = id operator(pg_catalog.+) 10;
				delete from public.audits where id operator(pg_catalog.=) 11;`
			fill := `select 1`
			switch name {
			case "an enum":
				fill = `update public.audits set status = 'running', message = '1', error = '1', user_id = '1', user_email = '1'`
			case "a row":
				fill = `update public.audits set status = 'Running', message = '(a,1)', error = '(,)', user_id = '(b,1)'`
			case "domains":
				fill = `select 1` // the domain's check belongs to whoever writes a value of it
			case "arrays":
				fill = `update public.audits set status = 'Running', message = '{1}', error = '{"(a,1)"}'`
			case "partitions of an enum":
				fill = `update public.audits set status = 'running', message = '(a,1)'`
			}
			exec(t, conn, `reset search_path`)
			for _, who := range []string{"", writer} {
				// A domain's check of a value that somebody writes is the application's own: without it the rest must run nothing.
				run := func(statement string) {
					t.Helper()
					if who != "" {
						if err := as(t, dsn, who, `set search_path = mine, public, pg_catalog; `+statement); err != nil {
							t.Errorf("%s: %v", statement, err)
						}
						return
					}
					exec(t, conn, statement)
				}
				run(write)
				run(fill)
				if strings.Contains(columns, "checked_key") {
					exec(t, conn, `delete from public.called where what = 'domain'`)
				}
				run(`update public.audits set progress = 5`)
				if got := b.heard(t, conn); len(got) == 0 {
					t.Error("nothing was announced")
				}
				for _, path := range []string{`mine, public, pg_catalog`, `pg_catalog`} {
					exec(t, conn, `set search_path = `+path)
					_ = column(t, conn, `select row_to_json(p)::text from auditstream.progress p, unnest('{12}'::pg_catalog.int8[]) k where p.audit_id operator(pg_catalog.=) k`)
					exec(t, conn, `reset search_path`)
				}
				if err := as(t, dsn, reader, `set search_path = mine, public, pg_catalog; select * from auditstream.progress; select message, user_id from auditstream.progress where user_id is not null`); err != nil {
					t.Errorf("serve: %v", err)
				}
				if s, err := sql.Inspect(t.Context(), conn); err != nil || s.View != nil {
					t.Errorf("inspect: %+v, %v", s, err)
				}
				exec(t, conn, `delete from public.audits`)
				_ = b.heard(t, conn)
			}
			exec(t, conn, `truncate public.audits`)
			if err := as(t, dsn, nobody, `select * from auditstream.progress`); err == nil {
				t.Error("a role without rights reads the view")
			}
			install(t, conn, sql.Options{Table: "public.audits", NotifyAlways: true})
			uninstall(t, conn)
			equal(t, "the owner's code that ran", others(t, conn, owner), nil)
		})
	}
}

// S2: what is shown of such a type is what its output function writes, and null where there is none.
func TestS2TypesOfOthersAreShownAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	ran(t, conn)
	exec(t, conn, evil("mine")+`create extension citext;
		create table audits (id bigint primary key, status mine.evil, progress int, message mine.pair, error mine.evil[], user_id citext, user_email mine.over);
		insert into audits values (1, 'failed', 1, '(a,1)', '{1,running}', 'Ü', '1'), (2, null, 1, '(,)', null, '', null), (3, null, null, null, '{}', null, null); truncate called`)
	install(t, conn, sql.Options{})
	equal(t, "the view", shown(t, conn), []string{`{"audit_id":1,"user_id":"Ü","user_email":"1","status":"failed","progress":1,"message":"(a,1)","error":"{1,running}"}`,
		`{"audit_id":2,"user_id":"","status":"pending","progress":1,"message":"(,)"}`, `{"audit_id":3,"status":"pending","progress":0,"error":"{}"}`})
	equal(t, "what ran", column(t, conn, `select what from called`), nil)
}

// S2: the table changes under what is installed, in every way that its owner can think of.
func TestS2OwnerChangesTheTableLater(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]string{
		"the key is replaced":           `alter table public.audits rename column id to id0; alter table public.audits add column id mine.evil`,
		"a shown column is replaced":    `alter table public.audits rename column message to message0; alter table public.audits add column message mine.evil default '1'`,
		"the key is dropped":            `alter table public.audits drop column id cascade; alter table public.audits add column id mine.evil`,
		"the key's type is changed":     `alter table public.audits alter id type mine.evil using '1'::mine.evil`,
		"a shown type is changed":       `alter table public.audits alter message type mine.evil using '1'::mine.evil`,
		"the key's type after a detour": `drop trigger auditstream_update on public.audits; drop trigger auditstream_insert on public.audits; drop trigger auditstream_delete on public.audits; alter table public.audits alter id type mine.evil using '1'::mine.evil`,
		"the table is replaced":         `alter table public.audits rename to audits0; create table public.audits (id mine.evil, status mine.evil, progress int, message mine.evil)`,
		"a child table":                 `create table public.child (message mine.checked) inherits (public.audits)`,
		"a child with more":             `create table public.child (more mine.evil default '1') inherits (public.audits); insert into public.child (id, progress) values (50, 1)`,
		"operators of the key's":        `create operator public.= (leftarg = bigint, rightarg = bigint, function = mine.any_op); create operator public.& (leftarg = integer, rightarg = integer, function = mine.any_and)`,
		"a name of ours":                `alter table public.audits rename column id to "new"; alter table public.audits rename column progress to old`,
		"our function on his table":     `create table public.bait (id mine.evil); create trigger t after insert on public.bait for each row execute function auditstream.changed(); insert into public.bait values ('1')`,
		"a trigger of our name":         `drop trigger auditstream_update on public.audits; create trigger auditstream_update after update on public.audits for each row when (old.progress is null) execute function auditstream.changed()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			ran(t, conn)
			owner, reader := role(t, dsn), role(t, dsn)
			exec(t, conn, `do $$ begin execute format('grant create on database %I to `+owner+`', current_database()); end $$`)
			if err := as(t, dsn, owner, evil("mine")+`create table public.audits (id bigint primary key, status text, progress int, message text); insert into public.audits values (1, 'x', 1, 'm')`); err != nil {
				t.Fatal(err)
			}
			install(t, conn, sql.Options{Role: reader})
			b := listen(t, dsn)
			err := as(t, dsn, owner, attack)
			t.Log(err) // PostgreSQL refuses some of them
			use := func() {
				for _, statement := range []string{`insert into audits (progress) values (3)`, `insert into audits (id, progress) values (4, 3)`, `update audits set progress = 4`,
					`update audits set message = '1'`, `delete from audits`, `truncate audits cascade`, `select * from auditstream.progress`, `select message operator(pg_catalog.||) '' from auditstream.progress`} {
					_, _ = conn.PgConn().Exec(t.Context(), statement).ReadAll() // some of it cannot be done any more
				}
			}
			use()
			exec(t, conn, `set search_path = mine, public, pg_catalog`)
			use()
			_, err = sql.Install(t.Context(), conn, sql.Options{Table: "public.audits", Role: reader})
			t.Log(err)
			_, err = sql.Inspect(t.Context(), conn)
			t.Log(err)
			exec(t, conn, `reset search_path`)
			use()
			_ = as(t, dsn, reader, `select * from auditstream.progress`)
			_ = b.heard(t, conn)
			_, err = sql.Uninstall(t.Context(), conn, sql.Options{})
			t.Log(err)
			// What the application's own statements run of the owner's code, as a domain's check, is not ours.
			exec(t, conn, `delete from called where what = 'domain'`)
			equal(t, "the owner's code that ran", others(t, conn, owner), nil)
		})
	}
}

// S2: who has made the schema before, or something in it, could replace what writers and serve run afterwards.
func TestS2SchemaOfSomebodyElse(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("install.sql")
	if err != nil {
		t.Fatal(err)
	}
	for name, trap := range map[string]string{
		"an empty schema": `create schema auditstream`,
		"a function":      `create schema auditstream; create function auditstream.changed() returns trigger language plpgsql as 'begin return null; end'`,
		"a view":          `create schema auditstream; create view auditstream.feeds as select ''::text as feed, 1 as class, 999999999 as buckets`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			stranger, owner := role(t, dsn), role(t, dsn)
			exec(t, conn, `do $$ begin execute format('grant create on database %I to `+stranger+`, `+owner+`', current_database()); end $$;
				grant create on schema public to `+owner)
			if err := as(t, dsn, owner, `create table public.audits (id bigint primary key, user_id text, user_email text, status text, progress integer, message text, geo_score float8, total_pages int, error text)`); err != nil {
				t.Fatal(err)
			}
			if err := as(t, dsn, stranger, trap); err != nil {
				t.Fatal(err)
			}
			if name != "an empty schema" {
				exec(t, conn, `alter schema auditstream owner to current_user`)
			}
			before := catalog(t, conn)
			_, err := sql.Install(t.Context(), conn, sql.Options{})
			want := `install: nothing was changed: ERROR: the schema auditstream or something in it belongs to ` + stranger + `, who is no superuser and does not own the table (SQLSTATE P0001)`
			if err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
			_, err = conn.PgConn().Exec(t.Context(), psqlToServer(string(script))).ReadAll()
			if err == nil || !strings.Contains(err.Error(), "belongs to "+stranger) {
				t.Errorf("the script: %v", err)
			}
			exec(t, conn, `rollback`)
			equal(t, "catalog", catalog(t, conn), before)
			// The table's owner is trusted with the table's triggers in any case.
			exec(t, conn, `reassign owned by `+stranger+` to `+owner)
			install(t, conn, sql.Options{})
			if got := column(t, conn, `select (buckets between 64 and 4096 and buckets & (buckets - 1) = 0)::text from auditstream.feeds`)[0]; got != "true" {
				t.Error("install believed a number of buckets that no install has chosen")
			}
		})
	}
}

// psqlToServer is as much of install.sql as comes before the first variable that matters.
func psqlToServer(script string) string {
	_, script, _ = strings.Cut(script, "-- Read committed")
	script, _, _ = strings.Cut(script, `\if :new_schema`)
	script = strings.NewReplacer(`:'table'`, `'public.audits'`, `:'lock_timeout'`, `'200ms'`, `\if :objects`, ``).Replace(script)
	_, script, _ = strings.Cut(script, "\n")
	return script
}

// writable is what a role that exec was told to be may change of ours.
const writable = `
	select format('%s %s', p, c.oid::regclass) from pg_class c, unnest('{insert,update,delete,truncate,references,trigger}'::text[]) p
	where (c.relnamespace = to_regnamespace('auditstream') or c.relname = 'audits') and c.relkind in ('r', 'v', 'p') and has_table_privilege(c.oid, p)
	union all select 'create in the schema' where has_schema_privilege('auditstream', 'create')
	union all select 'execute ' || p.oid::regprocedure from pg_proc p where p.pronamespace = to_regnamespace('auditstream') and p.prorettype <> 'trigger'::regtype
	union all select 'runs as ' || proowner::regrole || ': ' || oid::regprocedure from pg_proc where pronamespace = to_regnamespace('auditstream') and prosecdef`

// S3: giving back what was watched cost the square of it in definer code, and S4 and S5: any route made rows. serve writes nothing
// now, so there is nothing that it may write.
func TestS3ServingRoleWritesNothing(t *testing.T) {
	t.Parallel()
	for version := 0; version <= sql.SchemaVersion; version++ {
		dsn, conn := database(t)
		server := role(t, dsn)
		if version > 0 {
			old(t, dsn, version)
			exec(t, conn, `grant usage on schema auditstream to `+server+`; grant all on all tables in schema auditstream to public; revoke all on auditstream.progress from public`)
			if version >= 5 {
				exec(t, conn, `revoke all on auditstream.feeds from public`)
			}
		}
		install(t, conn, sql.Options{Create: true, Role: server})
		exec(t, conn, `set session authorization `+server+`; set default_transaction_read_only = on`)
		equal(t, fmt.Sprintf("from version %d: what the role may write", version), column(t, conn, writable), nil)
		// All that it does, in a transaction that may write nothing.
		exec(t, conn, `listen auditstream; begin; select pg_advisory_lock_shared(class, b) from auditstream.feeds, generate_series(0, 100) b; select * from auditstream.progress; commit;
			select pg_advisory_unlock_shared(class, b) from auditstream.feeds, generate_series(0, 100) b`)
		equal(t, "tables", column(t, conn, `select relname::text from pg_class where relnamespace = 'auditstream'::regnamespace and relkind <> 'v'`), nil)
		exec(t, conn, `reset session authorization`)
	}
}

// S3, the other way: whatever a role without rights holds of the locks, writers neither wait nor fail, and all that it can do to
// them is to make them notify.
func TestS3AnybodyHoldsTheLocks(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	nobody := role(t, dsn)
	w, keeper := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	class := column(t, w, `select class::text from auditstream.feeds`)[0]
	exec(t, keeper, `set role `+nobody)
	for _, mode := range []string{"pg_advisory_lock", "pg_advisory_lock_shared"} {
		exec(t, keeper, fmt.Sprintf(`select %s(%s, b) from generate_series(0, 4096) b`, mode, class))
		b.rings(t, w, `set lock_timeout = 1; set statement_timeout = '20s'; update audits set progress = 10 where id = 1`, "1")
		b.rings(t, w, `delete from audits where id = 5; insert into audits (id, url) values (5, 'u')`, "5") // the same twice in one transaction
		exec(t, keeper, `select pg_advisory_unlock_all()`)
		b.rings(t, w, `update audits set progress = 11 where id = 1`)
	}
}

// S2, found while that was closed: the table is looked up by the connection's search_path, and operators of somebody's own schema
// that come first there ran as the installer; so they did when install says who holds the lock that it waits for.
func TestS2InstallRunsNoOperatorsOfTheSearchPath(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	ran(t, conn)
	attacker := role(t, dsn)
	exec(t, conn, `do $$ begin execute format('grant create on database %I to `+attacker+`', current_database()); end $$;
		create table public.audits (id bigint primary key, status text, progress int)`)
	var more strings.Builder
	for _, types := range []string{"name, text", "name, name", "oid, oid", "oid, integer", "oid, bigint", "xid, integer", `"char", text`, `"char", "char"`, "boolean, boolean", "text, name"} {
		left, right, _ := strings.Cut(types, ", ")
		fmt.Fprintf(&more, `create function mine.op2(%s) returns boolean language plpgsql as $$ begin perform mine.call('operator of %s'); return true; end $$;`, types, strings.ReplaceAll(types, `"`, ``))
		for _, op := range []string{"=", "<>"} {
			fmt.Fprintf(&more, `create operator mine.%s (leftarg = %s, rightarg = %s, function = mine.op2);`, op, left, right)
		}
	}
	if err := as(t, dsn, attacker, evil("mine")+more.String()); err != nil {
		t.Fatal(err)
	}
	busy := pgtest.Connect(t, dsn)
	exec(t, busy, `begin; lock table public.audits in row exclusive mode`)
	exec(t, conn, `set search_path = mine, public, pg_catalog`)
	for _, table := range []string{"audits", "public.audits", "Public.Audits", "nothing"} {
		_, err := sql.Install(t.Context(), conn, sql.Options{Table: table, LockTimeout: 5 * time.Millisecond, LockWait: time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "it is held by process") && !strings.Contains(err.Error(), "there is no table nothing in the database") {
			t.Errorf("%s: %v", table, err) // the attacker's code cannot write in a transaction that only reads, and is an error there
		}
	}
	exec(t, busy, `commit`)
	install(t, conn, sql.Options{})
	if _, err := sql.Inspect(t.Context(), conn); err != nil {
		t.Error(err)
	}
	uninstall(t, conn)
	exec(t, conn, `reset search_path`)
	equal(t, "the attacker's code that ran", others(t, conn, attacker), nil)
}
