package sql_test

import (
	"slices"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

func TestRoleGetsWhatServeNeedsAndNoMore(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string]bool{"everybody may connect": false, "nobody may connect": true}, func(t *testing.T, _ string, locked bool) {
		dsn, conn := audits(t)
		reader := role(t, dsn)
		if locked {
			exec(t, conn, `do $$ begin execute format('revoke connect on database %I from public', current_database()); end $$`)
		}
		before := catalog(t, conn)
		plan := install(t, conn, sql.Options{Role: strings.ToUpper(reader)})
		if strings.Contains(plan.SQL, "create or replace trigger") {
			t.Errorf("to grant rights takes no trigger:\n%s", plan.SQL)
		}
		testkit.Equal(t, strings.Contains(plan.SQL, "grant connect"), locked, "grant connect")
		equal(t, "rights", column(t, conn, `
			select unnest(array[
				'connect ' || has_database_privilege($1, current_database(), 'connect'),
				'create ' || has_database_privilege($1, current_database(), 'create'),
				'usage ' || has_schema_privilege($1, 'auditstream', 'usage'),
				'create in the schema ' || has_schema_privilege($1, 'auditstream', 'create'),
				(select string_agg(p || ' ' || t, ',' order by t) from unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) p,
					unnest('{auditstream.progress,auditstream.feeds,audits}'::text[]) t where has_table_privilege($1, t, p))])`, reader),
			[]string{"connect true", "create false", "usage true", "create in the schema false", "select auditstream.feeds,select auditstream.progress"})
		unchanged(t, conn, sql.Options{Role: reader})
		serve := pgtest.Connect(t, dsn)
		exec(t, serve, `set role `+reader+`; listen auditstream`)
		testkit.Equal(t, len(shown(t, serve)), 1, "rows shown")
		uninstall(t, conn)
		install(t, conn, sql.Options{})
		equal(t, "after uninstall and install", catalog(t, conn), before)
	})
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	type test struct{ setup, want string }
	testkit.Each(t, map[string]test{
		"no create on the database": {`grant all on audits to ROLE`,
			`the role ROLE may not create the schema auditstream: let the owner of the database run: grant create on database "DB" to "ROLE"`},
		"no trigger": {`GRANT_CREATE; grant select on audits to ROLE`,
			`the role ROLE may not create triggers on public.audits: install as its owner, OWNER, or let it run: ` +
				`grant trigger on "public"."audits" to "ROLE"`},
		"no select": {`GRANT_CREATE; grant trigger on audits to ROLE; grant select (id, status) on audits to ROLE`,
			`the role ROLE may not read column progress of public.audits: install as its owner, OWNER, or let it run: ` +
				`grant select on "public"."audits" to "ROLE"`},
		"schema of somebody else": {`create schema auditstream; grant all on audits to ROLE`,
			`the role ROLE may not create anything in the schema auditstream: install as the role that owns it`},
		"no usage": {`GRANT_CREATE; grant all on audits to ROLE; revoke usage on schema public from public`,
			`the role ROLE may not use the schema public: grant usage on schema "public" to "ROLE"`},
	}, func(t *testing.T, _ string, test test) {
		dsn, conn := database(t)
		installer := role(t, dsn)
		here := column(t, conn, `select current_database() union all select current_user`)
		fill := strings.NewReplacer("GRANT_CREATE", `grant create on database "DB" to ROLE`, "ROLE", installer, "DB", here[0], "OWNER", here[1])
		exec(t, conn, `create table audits (id bigint primary key, status text, progress integer)`)
		exec(t, conn, fill.Replace(fill.Replace(test.setup)))
		before := catalog(t, conn)
		exec(t, conn, `set role `+installer)
		refused(t, sql.Install, conn, sql.Options{Table: "public.audits", Public: true}, fill.Replace(test.want))
		// Somebody without rights may still print the script for somebody who has them.
		plan, err := sql.PlanInstall(t.Context(), conn, sql.Options{Table: "public.audits", Public: true})
		if err != nil || plan.SQL == "" || !slices.Equal(warnings(plan), []string{fill.Replace(test.want)}) {
			t.Errorf("plan: %+v, %v", plan, err)
		}
		exec(t, conn, `reset role`)
		equal(t, "catalog", catalog(t, conn), before)
	})
}

// TestInstallerNeedsNoMore: not the table's owner, and no superuser.
func TestInstallerNeedsNoMore(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	installer := role(t, dsn)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer); insert into audits values (1, 'x', 1);
		grant select, trigger on audits to `+installer+`;
		do $$ begin execute format('grant create on database %I to `+installer+`', current_database()); end $$`)
	exec(t, conn, `set role `+installer)
	install(t, conn, sql.Options{})
	unchanged(t, conn, sql.Options{})
	testkit.Equal(t, len(shown(t, conn)), 1, "rows shown")
	owner := column(t, conn, `select session_user::text`)[0]
	refused(t, sql.Uninstall, conn, sql.Options{}, `this takes the rights of `+owner+`, which `+installer+
		` does not have: uninstall as a superuser, or as a role that has the rights of all, with: grant "`+owner+`" to "`+installer+`"`)
	exec(t, conn, `reset role`)
	listen(t, dsn).notifies(t, conn, `update audits set progress = 2`, "1")
	uninstall(t, conn)
}

// The conditions of the triggers run with the writer's rights: without these rights the application's statements would fail.
func TestInstallRefusesWhereWritersMayNotLook(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{"pg_try_advisory_lock(integer,integer)", "pg_advisory_unlock(integer,integer)", "pg_notify(text,text)",
		"hashint8(bigint)"}, func(t *testing.T, function string) {
		_, conn := database(t)
		exec(t, conn, `create table audits (id bigint primary key, status text, progress integer);
			revoke execute on function pg_catalog.`+function+` from public`)
		before := catalog(t, conn)
		refused(t, sql.Install, conn, sql.Options{}, `not everybody may execute `+function+
			`, so that writers of public.audits, or serve, would fail: grant execute on function pg_catalog.`+function+` to public`)
		equal(t, "catalog", catalog(t, conn), before)
		install(t, conn, sql.Options{NoTriggers: true}) // which looks at nothing
		exec(t, conn, `grant execute on function pg_catalog.`+function+` to public`)
		install(t, conn, sql.Options{})
	})
}

// A backup's role that could read everything is refused by pg_dump as soon as a table of ours is in the database. Nobody else is named.
func TestU3InstallNamesRolesThatCannotDumpAnyMore(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	backup, reader, server, all := role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn)
	for _, name := range []string{backup, reader, server, all} {
		exec(t, conn, `alter role `+name+` login`)
	}
	exec(t, conn, `create table audits (id serial primary key, status text, progress integer, user_id text); create schema app;
		create table app.others (id int);
		grant select on all tables in schema public to `+backup+`, `+reader+`, `+server+`;
		grant select on all sequences in schema public to `+backup+`, `+reader+`;
		grant usage on schema app to `+backup+`; grant select on app.others to `+backup+`; grant pg_read_all_data to `+all)
	warned := func(o sql.Options) string { return strings.Join(warnings(install(t, conn, o)), "\n") }
	_ = warned(sql.Options{Role: server})
	// Whatever table is there: it is pg_dump that locks them all.
	exec(t, conn, `create table auditstream.more (id int)`)
	got := warned(sql.Options{})
	if !strings.Contains(got, "pg_dump of the whole database fails for "+backup+", who may") {
		t.Fatalf("warnings: %q", got)
	}
	for _, other := range []string{reader, server, all} {
		if strings.Contains(got, other) {
			t.Errorf("%s could not dump the database before, or still can: %q", other, got)
		}
	}
	// What the warning says helps.
	exec(t, conn, got[strings.Index(got, "grant usage"):])
	testkit.Equal(t, warned(sql.Options{}), "", "warnings after the grant")
}
