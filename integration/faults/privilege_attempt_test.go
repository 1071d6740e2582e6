package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs with which an attempt may end.
const (
	insufficientPrivilege = "42501"
	notUpdatable          = "55000" // PostgreSQL says so of some views before it looks at rights
	notSupported          = "0A000"
	notGranted            = "01007" // a warning: the statement does nothing
)

// intruder is a session of the role that serve has, and what PostgreSQL warned it of.
type intruder struct {
	*pgx.Conn
	notices []*pgconn.Notice
}

func intrude(t *testing.T, dsn string) *intruder {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	harness.NoError(t, err)
	i := new(intruder)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { i.notices = append(i.notices, n) }
	i.Conn, err = pgx.ConnectConfig(t.Context(), config)
	harness.NoError(t, err)
	t.Cleanup(func() { _ = i.Close(context.WithoutCancel(t.Context())) })
	return i
}

// refused tries a statement in a transaction that is rolled back, and reports one that is not refused for want of a right
// or with another SQLSTATE that is named.
func (i *intruder) refused(t *testing.T, statement string, also ...string) {
	t.Helper()
	// One message: there are hundreds of attempts.
	i.refusedAlone(t, "rollback; begin; "+statement, also...)
}

// refusedAlone is refused for statements that cannot run in a transaction.
func (i *intruder) refusedAlone(t *testing.T, statement string, also ...string) {
	t.Helper()
	i.notices = nil
	_, err := i.PgConn().Exec(t.Context(), statement).ReadAll()
	if err == nil && slices.ContainsFunc(i.notices, func(n *pgconn.Notice) bool { return n.Code == notGranted }) {
		return
	}
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || (pgErr.Code != insufficientPrivilege && !slices.Contains(also, pgErr.Code)) {
		t.Errorf("%s\n\tgot %v, want it refused", statement, err)
	}
}

// Every relation of the database is tried with every kind of access; which there are is read from the catalog.
func TestPrivilegeRoleReadsTheViewAlone(t *testing.T) {
	t.Parallel()
	db, admin := newNeighbourhood(t)
	reader := intrude(t, db.Serve)
	const contents = `select (select string_agg(a::text, ',' order by id) from audits a) || (select string_agg(c::text, ',') from app.customers c)
		|| (select last_value::text from audits_id_seq)`
	before := texts(t, admin, contents)

	type relation struct{ Name, Kind, Column string }
	rows, err := admin.Query(t.Context(), `
		select c.oid::regclass::text as name, c.relkind::text as kind, a.attname::text as column
		from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
		where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
			and a.attnum > 0 and not a.attisdropped`)
	harness.NoError(t, err)
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[relation])
	harness.NoError(t, err)
	const view, feeds, choices = "auditstream.progress", "auditstream.feeds", "auditstream.choices"
	seen := map[string]bool{}
	for _, c := range columns {
		column := pgx.Identifier{c.Column}.Sanitize()
		if c.Name == view || c.Name == feeds || c.Name == choices {
			harness.Exec(t, reader.Conn, "rollback")
			harness.Exec(t, reader.Conn, "select "+column+" from "+c.Name)
		} else {
			reader.refused(t, fmt.Sprintf("select %s from %s", column, c.Name))
		}
		if c.Kind != "S" {
			reader.refused(t, fmt.Sprintf("update %s set %s = null", c.Name, column), notUpdatable, notSupported, "428C9", "42809")
			reader.refused(t, fmt.Sprintf("insert into %s (%s) values (null)", c.Name, column), notUpdatable, notSupported, "428C9", "42809")
		}
		if seen[c.Name] {
			continue
		}
		seen[c.Name] = true
		if c.Kind == "S" {
			reader.refused(t, fmt.Sprintf("select nextval('%s')", c.Name))
			reader.refused(t, fmt.Sprintf("select setval('%s', 1)", c.Name))
			continue
		}
		if c.Name != view && c.Name != feeds && c.Name != choices {
			reader.refused(t, "select count(*) from "+c.Name)
			reader.refused(t, "table "+c.Name)
			reader.refused(t, "explain select * from "+c.Name)
			reader.refused(t, "copy (select * from "+c.Name+") to stdout")
			reader.refused(t, "lock table "+c.Name+" in access share mode", "42809")
		}
		for _, statement := range []string{
			"insert into %s default values", "delete from %s", "truncate %s", "select * from %s for update", "select * from %s for key share",
			"lock table %s in row share mode", "copy %s from stdin", "merge into %s using (select 1) s on false when not matched then insert default values",
			"alter table %s rename to other", "alter table %s owner to current_user", "drop table %s", "comment on table %s is 'mine'",
			"grant select on %s to public", "create index on %s ((1))", "create rule r as on insert to %s do instead nothing",
			"create trigger t after insert on %s execute function auditstream.changed()", "create policy p on %s",
			"alter table %s enable row level security", "alter table %s disable trigger all", "create statistics s on a, b from %s", "reindex table %s",
		} {
			// 42809: not for this kind of relation; 42601: merge is younger than PostgreSQL 14; 42P17: no such statistics.
			reader.refused(t, fmt.Sprintf(statement, c.Name), notUpdatable, "42809", "42601", "42P17", notSupported)
		}
	}
	harness.Exec(t, reader.Conn, "rollback")
	for _, name := range []string{view, feeds, "audits", "audits_id_seq", "app.customers", "app.names", "app.remote", "parts", "parts_1", "totals"} {
		if !seen[name] {
			t.Errorf("%s was not tried", name)
		}
	}
	harness.WantList(t, "what the tables hold", texts(t, admin, contents), before)
}

// What is not about one relation, in a database as PostgreSQL makes it.
func TestPrivilegeRoleIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	db, admin := newNeighbourhood(t)
	reader := intrude(t, db.Serve)
	var superuser, here string
	var pid int
	err := admin.QueryRow(t.Context(), `select quote_ident(current_user), quote_ident(current_database()), pg_backend_pid()`).
		Scan(&superuser, &here, &pid)
	harness.NoError(t, err)
	before := texts(t, admin, rights, "public")
	for _, statement := range []string{
		// more rights
		"set role " + superuser, "set session authorization " + superuser, "alter role current_user superuser", "alter role current_user createdb",
		"create role another", "grant " + superuser + " to current_user", "grant pg_read_all_data to current_user",
		"grant usage on schema auditstream to public", "alter default privileges for role " + superuser + " grant select on tables to public",
		"set session_replication_role = replica", "set log_min_messages = fatal",
		// objects of its own, where they would last
		"create schema mine", "create table auditstream.mine (id integer)", "create table app.mine (id integer)",
		"create table pg_catalog.mine (id integer)", "create view auditstream.mine as select 1", "create or replace view auditstream.progress as select 1",
		"create function auditstream.mine() returns integer language sql as 'select 1'",
		"create or replace function auditstream.changed() returns trigger language plpgsql as 'begin return null; end'",
		"create publication p for all tables", "create event trigger e on ddl_command_start execute function auditstream.changed()",
		"create server s foreign data wrapper elsewhere", "create user mapping for current_user server elsewhere",
		"create access method m type table handler heap_tableam_handler", "create cast (integer as app.kind) without function",
		// what install made
		"drop trigger auditstream_update on audits", "drop view auditstream.progress", "drop function auditstream.changed()",
		"drop view auditstream.feeds", "create or replace view auditstream.feeds as select 'audits'::text as feed, 1 as class, 1 as buckets",
		"grant select on auditstream.feeds to public",
		"drop schema auditstream cascade", "alter schema auditstream rename to other",
		"alter function auditstream.changed() security definer", "alter view auditstream.progress set (security_barrier)",
		// the application's code
		"select app.secret()", "call app.wipe()",
		// secrets and files of the server
		"select * from pg_authid", "select * from pg_shadow", "select * from pg_statistic", "select * from pg_largeobject", "select * from pg_hba_file_rules",
		"select * from pg_file_settings", "select * from pg_user_mapping", "select * from pg_subscription",
		"select pg_read_file('PG_VERSION')", "select pg_read_binary_file('PG_VERSION')", "select pg_ls_dir('.')", "select pg_stat_file('PG_VERSION')",
		"copy (select 1) to program 'true'", "copy (select 1) to '/tmp/auditstream-test'", "load '/tmp/auditstream-test'",
		"select lo_import('/etc/passwd')", "select lo_export(4711, '/tmp/auditstream-test')",
		"select lo_get(4711)", "select lo_put(4711, 0, 'x')", "select lo_unlink(4711)", "select lowrite(lo_open(4711, 131072), 'x')",
		// the server itself
		"checkpoint", "select pg_reload_conf()", "select pg_switch_wal()", fmt.Sprintf("select pg_terminate_backend(%d)", pid), fmt.Sprintf("select pg_cancel_backend(%d)", pid),
		"select pg_create_physical_replication_slot('s')", "select pg_stat_reset()", "alter database " + here + " rename to other",
		"alter database " + here + " set work_mem = '1MB'",
	} {
		reader.refused(t, statement)
	}
	reader.refused(t, "select auditstream.changed()", notSupported) // a trigger function is none to call
	harness.Exec(t, reader.Conn, "rollback")
	for _, statement := range []string{"alter system set work_mem = '4MB'", "drop database " + here, "create database mine", "create tablespace s location '/tmp'"} {
		reader.refusedAlone(t, statement)
	}
	harness.WantList(t, "the application's table", texts(t, admin, `select name from app.customers`), []string{"classified customer"})
	harness.WantList(t, "PUBLIC may", texts(t, admin, rights, "public"), before)
}

// Where PUBLIC was deprived, the role makes nothing at all, not even for its session.
func TestPrivilegeRoleCreatesNothingInALockedDatabase(t *testing.T) {
	t.Parallel()
	db, _ := newNeighbourhood(t)
	db.LockUp(t)
	reader := intrude(t, db.Serve)
	for _, statement := range []string{
		"create temporary table mine (id integer)", "create temporary view mine as select 1", "create temporary sequence mine",
		"create function pg_temp.mine() returns integer language sql as 'select 1'", "select 1 into temporary mine",
		"create table public.mine (id integer)", "create function public.mine() returns integer language sql as 'select 1'",
		"create type public.mine as (a integer)", "create operator public.=== (leftarg = text, rightarg = text, function = texteq)",
		"select * from public.audits", "drop trigger auditstream_update on public.audits", "select count(*) from public.invoices",
	} {
		reader.refused(t, statement)
	}
}

// What the view does not show cannot be had through the view either, nor from what PostgreSQL knows of the table. Rows
// are another matter: who may read the view sees all of them, which is what serve needs, so there is nothing for a
// security_barrier to guard.
func TestPrivilegeViewHidesTheOtherColumns(t *testing.T) {
	t.Parallel()
	db, _ := newNeighbourhood(t)
	reader := intrude(t, db.Serve)
	// A function so cheap that the planner calls it first tells whatever it is handed.
	harness.Exec(t, reader.Conn, `create function pg_temp.leak(v anyelement) returns boolean language plpgsql cost 0.0000001
		as $$ begin raise notice '%', v; return true; end $$`)
	harness.Exec(t, reader.Conn, `select from auditstream.progress p where pg_temp.leak(p)`)
	var said []string
	for _, n := range reader.notices {
		said = append(said, n.Message)
	}
	if heard := strings.Join(said, "\n"); len(said) != 2 || !strings.Contains(heard, "hers") || strings.Contains(heard, "classified") {
		t.Errorf("the view's rows hand over:\n%s", heard)
	}
	for _, statement := range []string{
		`select internal_notes from auditstream.progress`, `select pg_temp.leak(audits) from auditstream.progress`,
		`select (p).internal_notes from auditstream.progress p`,
	} {
		reader.refused(t, statement, "42703", "42P01") // there is no such column or table
	}
	harness.Exec(t, reader.Conn, "rollback")
	harness.WantList(t, "statistics", texts(t, reader.Conn, `select tablename || most_common_vals::text from pg_stats where schemaname !~ '^pg_|information_schema|auditstream'`), nil)
	harness.WantList(t, "statements of others", texts(t, reader.Conn, `select query from pg_stat_activity where usename <> current_user and query ~ 'classified'`), nil)
	harness.WantList(t, "owners", texts(t, reader.Conn, `select user_id from auditstream.progress order by audit_id`), []string{"alice", "bob"})
}

// What every role can do with CONNECT alone, so that nobody takes the role for harmless: SECURITY.md lists it.
func TestPrivilegeWhatEveryRoleMayDo(t *testing.T) {
	t.Parallel()
	db, _ := newNeighbourhood(t)
	reader := intrude(t, db.Serve)
	harness.Exec(t, reader.Conn, `begin`)
	for _, statement := range []string{
		`listen auditstream`, `notify auditstream, '1'`, `select pg_notify('auditstream', '*')`, `create temporary table mine (id integer)`,
		`select lo_create(0)`, `select pg_advisory_lock(1)`, `select pg_advisory_unlock(1)`, `lock table auditstream.progress in access share mode`,
		`select prosrc from pg_proc`, `select pg_get_viewdef('totals'::regclass)`, `alter role current_user set work_mem = '1MB'`,
		`create function pg_temp.mine() returns integer language sql as 'select 1'`,
	} {
		harness.Exec(t, reader.Conn, statement)
	}
	harness.Exec(t, reader.Conn, `rollback`)
}
