package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

const partitioned = `create schema app; create table app.jobs (id integer primary key, status text, progress integer) partition by range (id);
	create table app.jobs_1 partition of app.jobs for values from (0) to (10)`

func TestUninstallLeavesNoTrace(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	reader := role(t, dsn)
	exec(t, conn, partitioned)
	// The usual database lets everybody connect; this one has been locked up.
	exec(t, conn, `do $$ begin execute format('revoke connect on database %I from public', current_database()); end $$`)
	before := catalog(t, conn)
	options := sql.Options{Table: "app.jobs", Role: reader}
	install(t, conn, options)
	unchanged(t, conn, options)
	if len(difference(catalog(t, conn), before)) == 0 {
		t.Fatal("the catalog does not show the install")
	}
	planned, err := sql.PlanUninstall(t.Context(), conn, sql.Options{})
	testkit.NoError(t, err)
	plan := uninstall(t, conn)
	if plan.Table != `"app"."jobs"` || plan.SQL == "" || plan.SQL != planned.SQL || len(plan.Warnings) > 0 {
		t.Errorf("uninstall: %+v, planned %+v", plan, planned)
	}
	equal(t, "catalog", catalog(t, conn), before)
	if plan := uninstall(t, conn); plan.SQL != "" || plan.Table != "" {
		t.Errorf("a second uninstall: %+v", plan)
	}
}

// TestUninstallTakesBackConnectOfAllRoles: two roles that get CONNECT in one run are both written down.
func TestUninstallTakesBackConnectOfAllRoles(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	first, second := role(t, dsn), role(t, dsn)
	install(t, conn, sql.Options{Role: first}) // the database lets everybody connect
	exec(t, conn, `do $$ begin execute format('revoke connect on database %I from public', current_database()); end $$`)
	install(t, conn, sql.Options{Role: second})
	const connects = `select has_database_privilege(r, current_database(), 'connect')::text from unnest($1::text[]) r`
	equal(t, "connect", column(t, conn, connects, []string{first, second}), []string{"true", "true"})
	uninstall(t, conn)
	equal(t, "connect after uninstall", column(t, conn, connects, []string{first, second}), []string{"false", "false"})
}

func TestUninstallLeavesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	reader := role(t, dsn)
	exec(t, conn, `do $$ begin execute format('revoke connect on database %I from public', current_database()); end $$`)
	install(t, conn, sql.Options{Role: reader})
	exec(t, conn, `create table auditstream.notes (id integer); create function auditstream.f() returns integer language sql as 'select 1'`)
	plan := uninstall(t, conn)
	equal(t, "warnings", plan.Warnings, []string{
		`the schema auditstream stays, because it holds what install did not make: function auditstream.f(), table auditstream.notes`})
	equal(t, "what is left", column(t, conn, `select pg_describe_object(classid, objid, objsubid) ||
		coalesce(obj_description(refobjid, 'pg_namespace'), '')
		from pg_depend where refobjid = 'auditstream'::regnamespace order by 1`), []string{"function auditstream.f()", "table auditstream.notes"})
	equal(t, "connect", column(t, conn, `select has_database_privilege($1, current_database(), 'connect')::text`, reader), []string{"false"})
	if plan := uninstall(t, conn); plan.SQL != "" || len(plan.Warnings) != 1 {
		t.Errorf("a second uninstall: %+v", plan)
	}
}

func TestUninstallRefusesTriggersOfOthers(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	exec(t, conn, `create table jobs (id integer); create trigger ring after insert on jobs for each row execute function auditstream.changed()`)
	before := catalog(t, conn)
	refused(t, sql.Uninstall, conn, sql.Options{},
		`triggers that install did not make call functions of auditstream's; drop them first, with: drop trigger "ring" on "public"."jobs"`)
	equal(t, "catalog", catalog(t, conn), before)
}

// TestPsql: the files as they stand, and what --dry-run prints, give what Install gives.
func TestPsql(t *testing.T) {
	t.Parallel()
	tables := map[string]string{"the default table": sql.DefaultTable, "another name": `app."Audit Log"`}
	testkit.Each(t, tables, func(t *testing.T, _ string, table string) {
		byHand, hand := database(t)
		byDryRun, dry := database(t)
		_, byInstall := database(t)
		for _, conn := range []*pgx.Conn{hand, dry, byInstall} {
			exec(t, conn, `create schema app`)
		}
		empty := catalog(t, hand)
		set := `\set table '` + table + "'\n"
		if table == sql.DefaultTable {
			set = ""
		}
		for range 2 {
			pgtest.Psql(t, byHand, set+file(t, "audits.sql"))
			pgtest.Psql(t, byHand, set+file(t, "install.sql"))
		}
		options := sql.Options{Table: table, Create: true}
		plan := planned(t, dry, options)
		equal(t, "after a plan", catalog(t, dry), empty)
		pgtest.Psql(t, byDryRun, plan.SQL)
		install(t, byInstall, options)

		want := catalog(t, byInstall)
		equal(t, "psql -f", catalog(t, hand), want)
		equal(t, "dry run", catalog(t, dry), want)
		unchanged(t, dry, options)
		install(t, hand, options)
		equal(t, "install after psql -f", catalog(t, hand), want)

		removal, err := sql.PlanUninstall(t.Context(), dry, sql.Options{})
		testkit.NoError(t, err)
		pgtest.Psql(t, byDryRun, removal.SQL)
		pgtest.Psql(t, byHand, set+file(t, "uninstall.sql"))
		pgtest.Psql(t, byHand, set+file(t, "uninstall.sql"))
		uninstall(t, byInstall)
		want = catalog(t, byInstall)
		equal(t, "psql -f uninstall.sql", catalog(t, hand), want)
		equal(t, "dry run of uninstall", catalog(t, dry), want)
		if strings.Contains(strings.Join(want, "\n"), "auditstream") {
			t.Error("something is left")
		}
	})
}
