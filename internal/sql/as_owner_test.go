package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// group makes a table jobs of a role that nobody can log in as, and two members of that role.
func group(tb testing.TB, dsn string, conn *pgx.Conn, memberOptions string) (owner, one, two string) {
	tb.Helper()
	owner, one, two = installer(tb, dsn), role(tb, dsn), role(tb, dsn)
	exec(tb, conn, `alter role `+one+` `+memberOptions+`; alter role `+two+` `+memberOptions+`; grant `+owner+` to `+one+`, `+two+`;
		create table jobs (id int primary key, status text, progress int, user_id text); insert into jobs values (1, 'running', 1, 'a'); alter table jobs owner to `+owner)
	return owner, one, two
}

// session runs f in a session of another role.
func session(tb testing.TB, conn *pgx.Conn, name string, f func()) {
	tb.Helper()
	exec(tb, conn, `set session authorization `+name)
	f()
	exec(tb, conn, `reset session authorization`)
}

const ownersSQL = `
	select distinct pg_get_userbyid(o)::text from (select nspowner from pg_namespace where nspname = 'auditstream'
		union select relowner from pg_class where relnamespace = to_regnamespace('auditstream')
		union select proowner from pg_proc where pronamespace = to_regnamespace('auditstream')) x(o) order by 1`

// What the first member had installed, the others could neither install again nor uninstall.
func TestMembersOfTheTablesOwnerInstallInTurn(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{"inherit", "noinherit"}, func(t *testing.T, inherit string) {
		dsn, conn := database(t)
		owner, one, two := group(t, dsn, conn, inherit)
		server := role(t, dsn)
		o := sql.Options{Feed: "jobs", Role: server}
		session(t, conn, one, func() {
			plan := install(t, conn, o)
			if !strings.Contains(plan.SQL, "\nset local role \""+owner+"\";\n") {
				t.Errorf("the script does not become the owner:\n%s", plan.SQL)
			}
			equal(t, "warnings", warnings(plan), nil)
			unchanged(t, conn, o)
			equal(t, "the session's role", column(t, conn, `select current_user::text`), []string{one})
		})
		equal(t, "owners", column(t, conn, ownersSQL), []string{owner})
		session(t, conn, two, func() {
			unchanged(t, conn, o)
			o.Words = []sql.Word{{Stored: "done", Shown: "completed"}}
			install(t, conn, o)
		})
		equal(t, "owners", column(t, conn, ownersSQL), []string{owner})
		undrifted(t, dsn, server)
		session(t, conn, one, func() {
			unchanged(t, conn, o)
			if inherit == "noinherit" {
				refused(t, sql.Uninstall, conn, sql.Options{Feed: "jobs"}, `this takes the rights of `+owner+`, which `+one+
					` does not have: uninstall as that role, with options=-c%20role%3D`+owner+` among the parameters of DATABASE_URL, or as a superuser`)
				exec(t, conn, `set role `+owner)
			}
			uninstall(t, conn, "jobs")
			exec(t, conn, `reset role`)
		})
		equal(t, "left", column(t, conn, leftSQL), nil)
	})
}

// The script that --dry-run prints does the same in psql, and in a migration tool, whose later migrations run as the tool's role.
func TestScriptMakesWhatBelongsToTheTablesOwner(t *testing.T) {
	t.Parallel()
	testkit.EachOf(t, []string{"psql", "migration"}, func(t *testing.T, way string) {
		dsn, conn := database(t)
		owner, one, _ := group(t, dsn, conn, "noinherit")
		session(t, conn, one, func() {
			script := planned(t, conn, sql.Options{Feed: "jobs"})
			if way == "psql" {
				pgtest.Psql(t, dsn, `set session authorization `+one+`; `+script.SQL)
				return
			}
			exec(t, conn, `begin; `+script.Migration())
			equal(t, "the migration's role", column(t, conn, `select current_user::text`), []string{one})
			exec(t, conn, `commit`)
		})
		equal(t, "owners", column(t, conn, ownersSQL), []string{owner})
		session(t, conn, one, func() { unchanged(t, conn, sql.Options{Feed: "jobs"}) })
	})
}

// Where the owner may not create the schema, a member's install makes what is the member's own; nothing said so. The other members are told what
// makes it work for all, and not that install's own triggers are somebody else's.
func TestInstallOfAMemberSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner, one, two := group(t, dsn, conn, "inherit")
	exec(t, conn, `do $$ begin execute format('revoke create on database %1$I from `+owner+`; grant create on database %1$I to `+one+`', current_database()); end $$`)
	o := sql.Options{Feed: "jobs"}
	session(t, conn, one, func() {
		warned := strings.Join(warnings(install(t, conn, o)), "\n")
		if !strings.Contains(warned, `what this makes belongs to `+one+` and not to `+owner+`, who owns public.jobs`) || !strings.Contains(warned, `" to "`+owner+`"; then uninstall, and install again`) {
			t.Errorf("warnings: %s", warned)
		}
		unchanged(t, conn, o)
	})
	var hand string
	session(t, conn, two, func() {
		_, err := sql.Install(t.Context(), conn, o)
		fails(t, err, `this takes the rights of `+one+`, which `+two+` does not have: install as a superuser, or as a role that has the rights of all, with: grant "`+one+`" to "`+two+
			`"; or let a superuser give it all to `+owner+`, who owns public.jobs`)
		_, hand, _ = strings.Cut(err.Error(), "can, too, with: ")
		_, err = sql.Uninstall(t.Context(), conn, o)
		fails(t, err, `this takes the rights of `+one+`, which `+two+` does not have: uninstall as a superuser`)
		if strings.Contains(err.Error(), "did not make") {
			t.Errorf("install's own triggers are somebody else's: %v", err)
		}
		_, err = sql.PlanUninstall(t.Context(), conn, o)
		fails(t, err, `this takes the rights of `+one)
	})
	exec(t, conn, hand)
	session(t, conn, two, func() {
		install(t, conn, o)
		unchanged(t, conn, o)
		uninstall(t, conn, "jobs")
	})
	equal(t, "left", column(t, conn, leftSQL), nil)
}

// serve did not find the first feed any more, after a superuser had installed the second one again.
func TestInstallByAnotherRoleForgetsNoFeed(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner := installer(t, dsn)
	super := column(t, conn, `select current_user::text`)[0]
	exec(t, conn, `create table jobs (id int primary key, status text, progress int, user_id text); create table others (like jobs including all);
		alter table jobs owner to `+owner+`; alter table others owner to `+owner)
	session(t, conn, owner, func() {
		install(t, conn, sql.Options{Feed: "jobs"})
		install(t, conn, sql.Options{Feed: "others"})
	})
	unchanged(t, conn, sql.Options{Feed: "jobs"})
	o := sql.Options{Feed: "jobs", Ends: []string{"done"}}
	refused(t, sql.Install, conn, o, `auditstream.choices belongs to `+owner+`, and `+super+` would lose what it says of other feeds (others): install as that role, with options=-c%20role%3D`+
		owner+` among the parameters of DATABASE_URL`)
	exec(t, conn, `set role `+owner)
	install(t, conn, o)
	exec(t, conn, `reset role`)
	equal(t, "feeds", column(t, conn, `select feed from auditstream.choices order by 1`), []string{"jobs", "others"})
}

// PostgreSQL grants no role to one of its members: that was the remedy.
func TestRemedyForAMembersChoicesIsOneThatPostgreSQLAccepts(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner, one, two := group(t, dsn, conn, "inherit")
	o := sql.Options{Feed: "jobs"}
	session(t, conn, one, func() { install(t, conn, o) })
	exec(t, conn, `alter table auditstream.choices owner to `+two)
	session(t, conn, owner, func() {
		const hand = `alter table auditstream.choices owner to "`
		for what, run := range map[string]operation{"install": sql.Install, "uninstall": sql.Uninstall} {
			refused(t, run, conn, o, `this takes the rights of `+two+`, which `+owner+` does not have: `+what+` as a superuser; or let a superuser give it all to `+owner+
				`, who owns public.jobs, so that its members can, too, with: `+hand+owner+`"`)
		}
	})
	exec(t, conn, `alter table auditstream.choices owner to `+owner)
	session(t, conn, owner, func() { install(t, conn, o); unchanged(t, conn, o) })
	session(t, conn, two, func() { unchanged(t, conn, o); uninstall(t, conn) })
}
