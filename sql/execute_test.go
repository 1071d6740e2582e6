package sql_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"auditstream/integration/pgtest"
	"auditstream/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A role's own type, whose cast to text is the role's own code, in a table of its own that calls our trigger function. It ends
// with whether that code ran with the rights of a superuser.
const becomeInstaller = `
	create type pg_temp.evil as enum ('1');
	create function pg_temp.run(pg_temp.evil) returns text language plpgsql as $$ begin
		execute format('alter role %I superuser', session_user); return '1'; end $$;
	create cast (pg_temp.evil as text) with function pg_temp.run(pg_temp.evil) as implicit;
	create temporary table bait (id pg_temp.evil);
	create trigger bait after insert on bait for each row execute function auditstream.notify_change();
	insert into bait values ('1');`

// attack tries it as the role, which must have USAGE on the schema as serve has, and changes nothing.
func attack(tb testing.TB, conn *pgx.Conn, name string) (superuser bool, err error) {
	tb.Helper()
	exec(tb, conn, `begin; set session authorization `+name)
	defer exec(tb, conn, `rollback; reset session authorization`)
	_, err = conn.PgConn().Exec(tb.Context(), becomeInstaller).ReadAll()
	if err != nil {
		return false, err
	}
	return column(tb, conn, `select rolsuper::text from pg_roles where rolname = session_user`)[0] == "true", nil
}

// S1 of the outside hunt: whoever could name the trigger function became the superuser who had installed it.
func TestServingRoleDoesNotBecomeTheInstaller(t *testing.T) {
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
				server, granted := role(t, dsn), role(t, dsn)
				if version > 0 {
					old(t, dsn, version)
					exec(t, conn, `grant usage on schema auditstream to `+server)
					// What somebody has granted by name is as open as what PUBLIC has.
					exec(t, conn, `grant usage on schema auditstream to `+granted+`; grant all on function auditstream.notify_change() to `+granted+` with grant option`)
					exec(t, conn, `set role `+granted+`; grant execute on function auditstream.notify_change() to `+server+`; reset role`)
					if superuser, err := attack(t, conn, server); version >= 3 && (err != nil || !superuser) {
						t.Fatalf("against version %d the attack does nothing, so it proves nothing: %v", version, err)
					}
				} else {
					exec(t, conn, `alter default privileges grant execute on functions to `+granted)
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
				exec(t, conn, `grant usage on schema auditstream to `+server+`, `+granted)
				for _, name := range []string{server, granted} {
					superuser, err := attack(t, conn, name)
					var refused *pgconn.PgError
					if superuser || !errors.As(err, &refused) || refused.Code != "42501" || refused.Message != "permission denied for function auditstream.notify_change" {
						t.Errorf("%s: superuser %v, error %v, want permission denied for function auditstream.notify_change", name, superuser, err)
					}
				}
			})
		}
	}
}

// PostgreSQL asks whoever makes a partition for EXECUTE on the functions of the triggers that it gets copies of. The application's
// migrations must not fail for want of it, and nobody else needs it.
func TestOwnerOfAPartitionedTableStillMakesPartitions(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	owner, other := role(t, dsn), role(t, dsn)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer) partition by range (id);
		create table audits_1 partition of audits for values from (0) to (10);
		grant create on schema public to `+owner+`, `+other+`; alter table audits owner to `+owner)
	install(t, conn, sql.Options{})
	b := listen(t, dsn)
	exec(t, conn, `set role `+owner)
	b.rings(t, conn, `create table audits_2 partition of audits for values from (10) to (20); insert into audits values (11, 'running', 1)`, "11")
	exec(t, conn, `reset role`)

	exec(t, conn, `alter table audits owner to `+other)
	if plan := install(t, conn, sql.Options{}); plan.SQL == "" {
		t.Fatal("install did not notice the new owner")
	}
	if plan := install(t, conn, sql.Options{}); plan.SQL != "" {
		t.Fatalf("a second install wants to run:\n%s", plan.SQL)
	}
	equal(t, "who may execute it", column(t, conn, `select pg_get_userbyid(grantee)::text from pg_proc p, aclexplode(proacl) where proname = 'notify_change'
		and grantee <> proowner`), []string{other})
	exec(t, conn, `set role `+other+`; create table audits_3 partition of audits for values from (20) to (30); reset role`)
	if s, err := sql.ReadSchema(t.Context(), conn); err != nil || s.Exposed {
		t.Errorf("the owner's right counts as open to others: %+v, %v", s, err)
	}
}
