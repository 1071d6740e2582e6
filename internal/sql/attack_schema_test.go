package sql_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// S2: a role that had made the schema, or something in it, before the install could replace later what writers and serve run.
func TestS2SchemaOfSomebodyElse(t *testing.T) {
	t.Parallel()
	script := file(t, "install.sql")
	testkit.Each(t, map[string]string{
		"an empty schema": `create schema auditstream`,
		"a function":      `create schema auditstream; create function auditstream.changed() returns trigger language plpgsql as 'begin return null; end'`,
		"a view":          `create schema auditstream; create view auditstream.feeds as select ''::text as feed, 1 as class, 999999999 as buckets`,
	}, func(t *testing.T, name string, trap string) {
		dsn, conn := database(t)
		stranger, owner := installer(t, dsn), installer(t, dsn)
		mustAs(t, dsn, owner, `create table public.audits (id bigint primary key, user_id text, user_email text, status text, progress integer,
			message text, geo_score float8, total_pages int, error text)`)
		mustAs(t, dsn, stranger, trap)
		if name != "an empty schema" {
			exec(t, conn, `alter schema auditstream owner to current_user`)
		}
		before := catalog(t, conn)
		refused(t, sql.Install, conn, sql.Options{}, `install: nothing was changed: ERROR: the schema auditstream or something in it belongs to `+stranger+
			`, who is no superuser and does not own the table (SQLSTATE P0001)`)
		_, err := conn.PgConn().Exec(t.Context(), psqlToServer(script)).ReadAll()
		fails(t, err, "belongs to "+stranger)
		exec(t, conn, `rollback`)
		equal(t, "catalog", catalog(t, conn), before)
		// The table's owner is trusted with the table's triggers in any case.
		exec(t, conn, `reassign owned by `+stranger+` to `+owner)
		install(t, conn, sql.Options{})
		equal(t, "a number of buckets that an install chooses", column(t, conn, `select 'yes' from auditstream.feeds
			where buckets between 64 and 4096 and buckets & (buckets - 1) = 0`), []string{"yes"})
	})
}

// psqlToServer is the beginning of install.sql, before the first variable that matters.
func psqlToServer(script string) string {
	_, script, _ = strings.Cut(script, "-- Read committed")
	script, _, _ = strings.Cut(script, `\if :new_schema`)
	script = strings.NewReplacer(`:'table'`, `'public.audits'`, `:'lock_timeout'`, `'200ms'`, `:'lock_wait'`, `'30s'`, `\if :objects`, ``,
		`:take_over`, ``).Replace(script)
	_, script, _ = strings.Cut(script, "\n")
	return script
}

// S2, found while that was fixed: install looked up the table with the connection's search_path, and operators of a schema that comes first
// there ran as the installer. The same happened when install looked for the holder of a lock.
func TestS2InstallRunsNoOperatorsOfTheSearchPath(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	ran(t, conn)
	attacker := installer(t, dsn)
	exec(t, conn, `create table public.audits (id bigint primary key, status text, progress int)`)
	var more strings.Builder
	for _, types := range []string{"name, text", "name, name", "oid, oid", "oid, integer", "oid, bigint", "xid, integer", `"char", text`,
		`"char", "char"`, "boolean, boolean", "text, name"} {
		left, right, _ := strings.Cut(types, ", ")
		fmt.Fprintf(&more, `create function mine.op2(%s) returns boolean language plpgsql as $$ begin perform mine.call('operator of %s');
			return true; end $$;`, types, strings.ReplaceAll(types, `"`, ``))
		for _, op := range []string{"=", "<>"} {
			fmt.Fprintf(&more, `create operator mine.%s (leftarg = %s, rightarg = %s, function = mine.op2);`, op, left, right)
		}
	}
	mustAs(t, dsn, attacker, evil("mine")+more.String())
	busy := pgtest.Connect(t, dsn)
	exec(t, busy, `begin; lock table public.audits in row exclusive mode`)
	exec(t, conn, `set search_path = mine, public, pg_catalog`)
	for _, table := range []string{"audits", "public.audits", "Public.Audits", "nothing"} {
		want := map[bool]string{true: "there is no table nothing in the database", false: "it is held by process"}[table == "nothing"]
		// The attacker's code cannot write in a transaction that only reads, and would be an error there.
		refusedWith(t, sql.Install, conn, sql.Options{Table: table, LockTimeout: 5 * time.Millisecond, LockWait: time.Millisecond}, want)
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
