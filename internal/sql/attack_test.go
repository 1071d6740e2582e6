package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// The findings S1 to S3 of an external security review, as attacks. The attacker's code writes into the table public.called as whom it runs:
// only the attacker's own name may appear there.

// ran makes that table, and returns a query for the other roles that ran the attacker's code.
func ran(tb testing.TB, conn *pgx.Conn) {
	tb.Helper()
	exec(tb, conn, `create table public.called (who text, session text, what text); grant insert on public.called to public;
		grant create on schema public to public`)
}

func others(tb testing.TB, conn *pgx.Conn, attacker string) []string {
	tb.Helper()
	return column(tb, conn, `select distinct concat_ws(' ', what, 'as', who, 'in a session of', session) from public.called
		where who <> $1 or session <> $1`, attacker)
}

// evil is a type in the attacker's schema with every hook that a role without rights can make: casts from and to our types, implicit and
// explicit; operators with all names that we use; and functions with the names that we call.
func evil(schema string) string {
	var s strings.Builder
	fmt.Fprintf(&s, `create schema if not exists %[1]s; create type %[1]s.evil as enum ('1', 'running', 'failed');
		create type %[1]s.pair as (a text, b %[1]s.evil);
		create function %[1]s.call(what text) returns void language plpgsql as $$
			begin insert into public.called values (current_user, session_user, what); end $$;
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
			fmt.Fprintf(&s, `create function %[1]s.%[2]s(%[1]s.%[3]s, %[1]s.%[3]s) returns %[5]s language plpgsql as $$
				begin perform %[1]s.call('operator %[4]s');
				return null; end $$; create operator %[1]s.%[4]s (leftarg = %[1]s.%[3]s, rightarg = %[1]s.%[3]s, function = %[1]s.%[2]s);`, schema, f,
				of, op, returns)
		}
	}
	for _, f := range []string{"pg_notify(text, text)", "lower(text)", "format(text, text)", "hashint8(bigint)",
		"pg_try_advisory_lock(integer, integer)",
		"pg_advisory_unlock(integer, integer)", "int4and(integer, integer)", "int8eq(bigint, bigint)"} {
		name, _, _ := strings.Cut(f, "(")
		fmt.Fprintf(&s, `create function %s.%s returns boolean language plpgsql as $$ begin perform %[1]s.call('%[3]s'); return true;
			end $$;`, schema, f, name)
	}
	for _, types := range []string{"bigint, bigint", "integer, integer", "text, text"} {
		left, right, _ := strings.Cut(types, ", ")
		fmt.Fprintf(&s, `create function %[1]s.any_op(%[2]s) returns boolean language plpgsql as $$ begin perform %[1]s.call('operator of %[2]s');
			return true; end $$;
			create function %[1]s.any_and(%[2]s) returns integer language plpgsql as $$ begin perform %[1]s.call('& of %[2]s'); return 1;
			end $$;`, schema, types)
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

// mustAs is as for a script that succeeds.
func mustAs(tb testing.TB, dsn, name, script string) {
	tb.Helper()
	testkit.NoError(tb, as(tb, dsn, name, script))
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
	for version := 0; version <= sql.SchemaVersion; version++ { // 0: nothing was installed before
		for _, way := range []string{"install", "psql"} {
			t.Run(fmt.Sprint(version, way), func(t *testing.T) {
				t.Parallel()
				dsn, conn := database(t)
				server, granted, owner, writer, nobody := role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn)
				everybody := []string{server, granted, owner, writer, nobody}
				superusers := func() []string {
					return column(t, conn, `select rolname::text from pg_roles where rolsuper and rolname = any ($1)`, everybody)
				}
				if version > 0 {
					old(t, dsn, version)
					function := map[bool]string{true: "changed", false: "notify_change"}[version >= 5]
					// What somebody has granted by name is as open as what PUBLIC has.
					exec(t, conn, `grant usage on schema auditstream to `+server+`, `+granted+`;
						grant all on function auditstream.`+function+`() to `+granted+`, `+server+` with grant option`)
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
						pgtest.Psql(t, dsn, file(t, "audits.sql"))
					}
					pgtest.Psql(t, dsn, file(t, "install.sql"))
				}
				exec(t, conn, `grant usage on schema auditstream to `+server+`, `+granted+`, `+owner+`, `+writer+`; alter table audits owner to `+owner+`;
					grant all on audits to `+writer)
				for _, name := range everybody {
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
