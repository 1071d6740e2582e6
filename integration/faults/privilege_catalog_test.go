package faults

import (
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// neighbours is what else a database holds beside the audits: something of every kind that rights are granted on.
const neighbours = `
	alter table audits add column internal_notes text default 'classified note';
	insert into audits (url, user_id, status, progress, message) values
		('https://example.com', 'alice', 'running', 1, 'hers'), ('https://example.com', 'bob', 'running', 2, 'his');
	create schema app;
	create type app.kind as enum ('a', 'b');
	create domain app.score as integer;
	create table app.customers (id serial primary key, name text, kind app.kind, score app.score);
	insert into app.customers (name) values ('classified customer');
	create table public.invoices (id bigint generated always as identity, amount numeric);
	insert into public.invoices (amount) values (1);
	create table public.parts (id integer) partition by range (id);
	create table public.parts_1 partition of public.parts for values from (0) to (10);
	create view public.totals as select sum(amount) from public.invoices;
	create materialized view app.names as select name from app.customers;
	create function app.secret() returns text language sql security definer as $$ select name from app.customers $$;
	create procedure app.wipe() language sql security definer as $$ delete from app.customers $$;
	create foreign data wrapper elsewhere; create server elsewhere foreign data wrapper elsewhere;
	create foreign table app.remote (id integer) server elsewhere;
	select lo_from_bytea(4711, 'classified object');
	analyze;`

// newNeighbourhood is a database with neighbours, and a connection to it as the superuser.
func newNeighbourhood(t *testing.T) (harness.Database, *pgx.Conn) {
	t.Helper()
	db := harness.NewDatabase(t)
	admin := pgtest.Connect(t, db.Admin)
	harness.Exec(t, admin, neighbours)
	return db, admin
}

func texts(t testing.TB, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return list
}

// rights lists, for a role or for public, every privilege on every object of the database that is not PostgreSQL's own.
const rights = `
	with own as (
		select oid, nspname from pg_namespace
		where nspname !~ '^pg_(toast|temp|toast_temp)' and nspname not in ('pg_catalog', 'information_schema')
	), rights (kind, object, may, privilege) as (
		select 'database', 'this', has_database_privilege($1, current_database(), p), p from unnest('{CONNECT,CREATE,TEMPORARY}'::text[]) p
		union all
		select 'schema', nspname, has_schema_privilege($1, oid, p), p from own, unnest('{CREATE,USAGE}'::text[]) p
		union all
		select 'relation', c.oid::regclass::text, has_table_privilege($1, c.oid, p), p
		from pg_class c join own on own.oid = c.relnamespace,
			unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[] ||
				case when current_setting('server_version_num')::int >= 170000 then '{MAINTAIN}'::text[] else '{}' end) p
		where c.relkind in ('r', 'p', 'v', 'm', 'f')
		union all
		select 'a column of', c.oid::regclass::text, has_any_column_privilege($1, c.oid, p), p
		from pg_class c join own on own.oid = c.relnamespace, unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) p
		where c.relkind in ('r', 'p', 'v', 'm', 'f')
		union all
		select 'sequence', c.oid::regclass::text, has_sequence_privilege($1, c.oid, p), p
		from pg_class c join own on own.oid = c.relnamespace, unnest('{USAGE,SELECT,UPDATE}'::text[]) p
		where c.relkind = 'S'
		union all
		select 'function', f.oid::regprocedure::text, has_function_privilege($1, f.oid, 'EXECUTE'), 'EXECUTE'
		from pg_proc f join own on own.oid = f.pronamespace
		union all
		select 'type', y.oid::regtype::text, has_type_privilege($1, y.oid, 'USAGE'), 'USAGE'
		from pg_type y join own on own.oid = y.typnamespace where y.typtype <> 'c' and y.typelem = 0
		union all
		select 'language', lanname, has_language_privilege($1, oid, 'USAGE'), 'USAGE' from pg_language where lanpltrusted
		union all
		select 'wrapper', fdwname, has_foreign_data_wrapper_privilege($1, oid, 'USAGE'), 'USAGE' from pg_foreign_data_wrapper
		union all
		select 'server', srvname, has_server_privilege($1, oid, 'USAGE'), 'USAGE' from pg_foreign_server
		union all
		select 'tablespace', spcname, has_tablespace_privilege($1, oid, 'CREATE'), 'CREATE' from pg_tablespace
	)
	select concat_ws(' ', kind, object, privilege) from rights where may order by 1`

// everybodys are the rights in neighbours' database that PostgreSQL gives to every role, and install therefore does not
// take away: the application's other roles may need them.
func everybodys(version int) []string {
	list := []string{
		"database this CONNECT", "database this TEMPORARY",
		// Not to be reached: the schema app is closed.
		"function app.secret() EXECUTE", "function app.wipe() EXECUTE", "type app.kind USAGE", "type app.score USAGE",
		"function auditstream.changed() EXECUTE", // which has no rights of its own; whoever makes a partition is asked for it
		"language plpgsql USAGE", "language sql USAGE",
		"schema public USAGE",
	}
	if version < 150000 {
		list = append(list, "schema public CREATE") // PostgreSQL 15 ended that
	}
	slices.Sort(list)
	return list
}

// The role of install --role has, beyond what every role has, exactly what serve needs: found in the catalogs, so that an
// object added by a later version is looked at as well.
func TestPrivilegeRoleHasNoMoreThanServeNeeds(t *testing.T) {
	t.Parallel()
	granted := []string{
		"a column of auditstream.progress SELECT", "relation auditstream.progress SELECT", "schema auditstream USAGE",
		"a column of auditstream.choices SELECT", "relation auditstream.choices SELECT", // to see what has changed since
		"a column of auditstream.feeds SELECT", "relation auditstream.feeds SELECT", // how to tell the triggers what is watched
	}
	for _, test := range []struct {
		name   string
		locked bool
	}{{"as PostgreSQL makes a database", false}, {"locked up", true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db, admin := newNeighbourhood(t)
			var version int
			harness.NoError(t, admin.QueryRow(t.Context(), `select current_setting('server_version_num')::int`).Scan(&version))
			public, mine := everybodys(version), granted
			if test.locked {
				db.LockUp(t)
				mine = append([]string{"database this CONNECT"}, granted...)
				public = slices.DeleteFunc(public, func(right string) bool {
					return strings.HasPrefix(right, "database ") || strings.HasPrefix(right, "schema ")
				})
			}
			got := texts(t, admin, rights, "public")
			slices.Sort(got) // not by the server's collation
			harness.WantList(t, "PUBLIC may", got, public)
			want := slices.Concat(mine, public)
			slices.Sort(want)
			got = texts(t, admin, rights, harness.ServeRole)
			slices.Sort(got)
			harness.WantList(t, "the role may", got, want)
			// The sum of all kinds of objects, also of those that the list above does not know: whatever names the role in
			// its rights, its owner or its policies.
			harness.WantList(t, "what depends on the role", texts(t, admin, `
				select pg_describe_object(classid, objid, objsubid) || ' ' || deptype::text from pg_shdepend
				where refclassid = 'pg_authid'::regclass and refobjid = $1::regrole and dbid = (select oid from pg_database where datname = current_database())
				order by 1`, harness.ServeRole), []string{
				"schema auditstream a", "table auditstream.choices a", "view auditstream.feeds a", "view auditstream.progress a",
			})
			harness.WantList(t, "grant options", texts(t, admin, `select 'one' from pg_class, aclexplode(relacl) where grantee = $1::regrole and is_grantable
				union all select 'one' from pg_namespace, aclexplode(nspacl) where grantee = $1::regrole and is_grantable`, harness.ServeRole), nil)
			harness.WantList(t, "roles it belongs to, and powers", texts(t, admin, `
				select rolname::text from pg_roles where rolname <> $1 and pg_has_role($1, oid, 'member') union all
				select 'power' from pg_roles where rolname = $1 and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)`, harness.ServeRole), nil)
			harness.WantList(t, "large objects", texts(t, admin, `select oid::text from pg_largeobject_metadata, aclexplode(lomacl) where grantee in (0, $1::regrole)`, harness.ServeRole), nil)
		})
	}
}
