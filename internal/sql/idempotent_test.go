package sql_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

func TestInstallTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	name := role(t, dsn)
	options := sql.Options{Role: name}
	install(t, conn, options)
	before := versions(t, conn)
	// Only a lock against readers would be in the way of reading how the view is defined.
	locker := pgtest.Connect(t, dsn)
	exec(t, locker, `begin; lock table audits in exclusive mode`)
	for _, o := range []sql.Options{options, {}, {Create: true}, {Table: "audits", LockTimeout: time.Second}, {Table: "Public.AUDITS"}} {
		o.LockWait = time.Millisecond
		plan := install(t, conn, o)
		if plan.SQL != "" || plan.Table != `"public"."audits"` {
			t.Errorf("install %+v: table %s, script %q", o, plan.Table, plan.SQL)
		}
	}
	equal(t, "rows of the catalogs", versions(t, conn), before)
}

// TestChangedCollation: "create or replace view" cannot change the collation of a column.
func TestChangedCollation(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	exec(t, conn, `alter table audits add words text collate "C"`)
	for _, words := range []string{"words", "message"} {
		options := sql.Options{Columns: map[string]string{"message": words}}
		install(t, conn, options)
		unchanged(t, conn, options)
	}
}

// TestSessionSettingsDoNotMatter, nor do pgx's ways to send a query.
func TestSessionSettingsDoNotMatter(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			dsn, admin := database(t)
			reader := role(t, dsn)
			exec(t, admin, `create table audits (id integer primary key, status text, progress real, error json)`)
			config := admin.Config().Copy()
			config.DefaultQueryExecMode = mode
			conn, err := pgx.ConnectConfig(t.Context(), config)
			testkit.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
			exec(t, conn, `set default_transaction_isolation = serializable; set default_transaction_read_only = on;
				set search_path = ''; set lock_timeout = 1; set extra_float_digits = 0; set quote_all_identifiers = on`)
			if mode != pgx.QueryExecModeSimpleProtocol { // which insists on it
				exec(t, conn, `set standard_conforming_strings = off`)
			}
			options := sql.Options{Role: reader, Columns: map[string]string{"error": "error"}}
			install(t, conn, options)
			unchanged(t, conn, options)
			s, err := sql.Inspect(t.Context(), conn)
			if err != nil || s.View != nil || s.Index != nil {
				t.Errorf("inspect: %+v, %v", s, err)
			}
			refusedWith(t, sql.PlanInstall, conn, sql.Options{Table: "nothing.here"}, "there is no table nothing.here in the database ")
			uninstall(t, conn)
		})
	}
}

func TestInstallKeepsEnableAlways(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	exec(t, conn, `alter table audits enable always trigger auditstream_update`)
	unchanged(t, conn, sql.Options{}) // enable always is no damage
	exec(t, conn, `alter table audits disable trigger auditstream_insert`)
	install(t, conn, sql.Options{})
	equal(t, "triggers", column(t, conn, `select tgname || ' ' || tgenabled::text from pg_trigger where not tgisinternal order by 1`),
		strings.Split("auditstream_delete O,auditstream_insert O,auditstream_owner O,auditstream_rekey O,auditstream_truncate O,auditstream_update A", ","))
	unchanged(t, conn, sql.Options{})
}

func TestDisabledOnAPartition(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id integer primary key, status text, progress integer) partition by range (id);
		create table audits_1 partition of audits for values from (0) to (10)`)
	install(t, conn, sql.Options{})
	exec(t, conn, `alter table audits_1 disable trigger auditstream_insert`)
	s, err := sql.Inspect(t.Context(), conn)
	if err != nil || len(s.Triggers) != 6 { // five, and the one that is disabled
		t.Fatalf("inspect: %+v, %v", s, err)
	}
	testkit.Equal(t, s.Triggers[5], sql.Trigger{Name: "auditstream_insert", Table: `"public"."audits_1"`, Enabled: "disabled"}, "trigger")
	install(t, conn, sql.Options{})
	listen(t, dsn).notifies(t, conn, `insert into audits values (1, 'x', 1)`, "1")
	// Partitions come and go without a reason to install again.
	exec(t, conn, `create table audits_2 partition of audits for values from (10) to (20)`)
	unchanged(t, conn, sql.Options{}) // a new partition is no reason
}

func TestReplacedViewKeepsItsGrants(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	reader, other := role(t, dsn), role(t, dsn)
	install(t, conn, sql.Options{Role: reader})
	exec(t, conn, `grant select (audit_id, status) on auditstream.progress to `+other+` with grant option;
		grant select on auditstream.progress to public`)
	grants := func() []string {
		return column(t, conn, `select relacl::text from pg_class where oid = 'auditstream.progress'::regclass
			union all select attname || attacl::text from pg_attribute where attrelid = 'auditstream.progress'::regclass and attacl is not null order by 1`)
	}
	before := grants()
	exec(t, conn, `alter view auditstream.progress rename column error to reason`)
	install(t, conn, sql.Options{Role: reader})
	equal(t, "grants", grants(), before)
}

func TestViewThatOthersUseIsNotDropped(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	exec(t, conn, `alter view auditstream.progress rename column error to reason; create view report as table auditstream.progress`)
	before := catalog(t, conn)
	for name, run := range map[string]operation{"install": sql.Install, "uninstall": sql.Uninstall} {
		refused(t, run, conn, sql.Options{}, name+": something else depends on it, so nothing was changed "+
			"(view public.report depends on view auditstream.progress): "+
			"ERROR: cannot drop view auditstream.progress because other objects depend on it (SQLSTATE 2BP01)")
	}
	equal(t, "catalog", catalog(t, conn), before)
}

func TestNoTriggers(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id integer primary key, status text, progress integer); insert into audits values (1, 'x', 1)`)
	// The view needs no lock that writers notice.
	writer := pgtest.Connect(t, dsn)
	exec(t, writer, `begin; update audits set progress = 2`)
	install(t, conn, sql.Options{NoTriggers: true, LockWait: time.Millisecond})
	exec(t, writer, `commit`)
	count := func() string {
		return column(t, conn, `select count(*)::text from pg_trigger where not tgisinternal`)[0]
	}
	testkit.Equal(t, count()+" "+shown(t, conn)[0], `0 {"audit_id":1,"status":"x","progress":2}`, "triggers and row")
	unchanged(t, conn, sql.Options{NoTriggers: true})
	s, err := sql.Inspect(t.Context(), conn)
	if err != nil || s.Table != `"public"."audits"` || s.View != nil || s.Triggers[0].Enabled != "missing" {
		t.Errorf("inspect: %+v, %v", s, err)
	}
	install(t, conn, sql.Options{})
	if count() != "5" {
		t.Error("install did not add the triggers")
	}
	install(t, conn, sql.Options{NoTriggers: true})
	if count() != "0" {
		t.Error("install did not take the triggers away")
	}
	if plan := uninstall(t, conn); plan.SQL == "" || plan.Table != `"public"."audits"` {
		t.Errorf("uninstall: %+v", plan)
	}
}

func TestAnotherTableIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string]bool{"with triggers": false, "view alone": true}, func(t *testing.T, _ string, noTriggers bool) {
		_, conn := database(t)
		exec(t, conn, `create table audits (id integer primary key, status text, progress integer); create table jobs (like audits including all)`)
		install(t, conn, sql.Options{NoTriggers: noTriggers})
		before := catalog(t, conn)
		refused(t, sql.Install, conn, sql.Options{Table: "jobs"}, `the feed audits is installed on public.audits, not on public.jobs: `+
			`give the other table a feed of its own with --feed NAME, or take this one away first with auditstream uninstall --feed audits`)
		equal(t, "catalog", catalog(t, conn), before)
	})
}
