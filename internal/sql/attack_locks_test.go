package sql_test

import (
	"fmt"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
)

// writable returns the objects of ours that a role may change; exec runs as that role.
const writable = `
	select format('%s %s', p, c.oid::regclass) from pg_class c, unnest('{insert,update,delete,truncate,references,trigger}'::text[]) p
	where (c.relnamespace = to_regnamespace('auditstream') or c.relname = 'audits') and c.relkind in ('r', 'v', 'p') and has_table_privilege(c.oid, p)
	union all select 'create in the schema' where has_schema_privilege('auditstream', 'create')
	union all select 'execute ' || p.oid::regprocedure from pg_proc p
		where p.pronamespace = to_regnamespace('auditstream') and p.prorettype <> 'trigger'::regtype
	union all select 'runs as ' || proowner::regrole || ': ' || oid::regprocedure from pg_proc
		where pronamespace = to_regnamespace('auditstream') and prosecdef`

// S3: to end many watches took quadratic time in definer code. S4 and S5: any route wrote rows. Now serve writes nothing, so it needs no
// right to write.
func TestS3ServingRoleWritesNothing(t *testing.T) {
	t.Parallel()
	for version := 0; version <= sql.SchemaVersion; version++ {
		dsn, conn := database(t)
		server := role(t, dsn)
		if version > 0 {
			old(t, dsn, version)
			exec(t, conn, `grant usage on schema auditstream to `+server+`; grant all on all tables in schema auditstream to public;
				revoke all on auditstream.progress from public`)
			if version >= 5 {
				exec(t, conn, `revoke all on auditstream.feeds from public`)
			}
		}
		install(t, conn, sql.Options{Create: true, Role: server})
		exec(t, conn, `set session authorization `+server+`; set default_transaction_read_only = on`)
		equal(t, fmt.Sprintf("from version %d: what the role may write", version), column(t, conn, writable), nil)
		// Everything that it does, in a read-only transaction.
		exec(t, conn, `listen auditstream; begin; select pg_advisory_lock_shared(class, b) from auditstream.feeds, generate_series(0, 100) b;
			select * from auditstream.progress; commit;
			select pg_advisory_unlock_shared(class, b) from auditstream.feeds, generate_series(0, 100) b`)
		equal(t, "tables, which it may read", column(t, conn, `select relname::text from pg_class
			where relnamespace = 'auditstream'::regnamespace and relkind = 'r'`), []string{"choices"})
		exec(t, conn, `reset session authorization`)
	}
}

// S3, the other way round: a role without rights that holds locks of ours can only make writers notify. They neither wait nor fail.
func TestS3AnybodyHoldsTheLocks(t *testing.T) {
	t.Parallel()
	dsn, b := unwatched(t)
	nobody := role(t, dsn)
	w, keeper := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	class := column(t, w, `select class::text from auditstream.feeds`)[0]
	exec(t, keeper, `set role `+nobody)
	for _, mode := range []string{"pg_advisory_lock", "pg_advisory_lock_shared"} {
		exec(t, keeper, fmt.Sprintf(`select %s(%s, b) from generate_series(0, 4096) b`, mode, class))
		// A wait for keeper would have no end. A short one is PostgreSQL's: transactions that notify commit one at a time in the
		// whole server (PreCommit_Notify, commands/async.c), and other tests notify, too.
		b.notifies(t, w, `set lock_timeout = '20s'; update audits set progress = 10 where id = 1`, "1")
		b.notifies(t, w, `delete from audits where id = 5; insert into audits (id, url) values (5, 'u')`, "5") // the same twice in one transaction
		exec(t, keeper, `select pg_advisory_unlock_all()`)
		b.notifies(t, w, `update audits set progress = 11 where id = 1`)
	}
}
