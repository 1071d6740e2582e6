package sql

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// dumpersSQL lists the roles that may read all tables and sequences of the database except those of the schema auditstream. pg_dump locks and
// reads each table, and no view.
const dumpersSQL = `
	with relation as materialized (
		select c.oid, c.relnamespace, n.nspname = 'auditstream' as ours from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
			and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
	)
	select pg_catalog.quote_ident(r.rolname) from pg_catalog.pg_roles r
	where r.rolcanlogin and not r.rolsuper and pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'connect')
		and exists (select from relation c where c.ours
			and not (pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'usage') and pg_catalog.has_table_privilege(r.oid, c.oid, 'select')))
		and exists (select from relation c where not c.ours)
		and not exists (select from relation c where not c.ours
			and not (pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'usage') and pg_catalog.has_table_privilege(r.oid, c.oid, 'select')))
	order by r.rolname`

// dumpWarning returns one sentence about the roles that could run pg_dump on the database before a table of ours was in it; "" when there is
// none. conn must not be in a transaction.
func dumpWarning(ctx context.Context, conn *pgx.Conn) string {
	roles, err := inReadTransaction(ctx, conn, time.Second, func() ([]string, error) {
		err := emptySearchPath(ctx, conn) // so that operators are those of pg_catalog
		if err != nil {
			return nil, err
		}
		return texts(ctx, conn, "who may dump the database", dumpersSQL)
	})
	if err != nil {
		return fmt.Sprintf("it is not known whether pg_dump still works for everybody: %v", err)
	}
	if len(roles) == 0 {
		return ""
	}
	more := ""
	if most := 5; len(roles) > most {
		more = fmt.Sprintf(" (and for %d more)", len(roles)-most)
		roles = roles[:most]
	}
	return fmt.Sprintf("pg_dump of the whole database fails for %s%s, who may read all of its tables but those of the schema auditstream: where it is used,"+
		" grant usage on schema auditstream to %[1]s; grant select on all tables in schema auditstream to %[1]s", strings.Join(roles, ", "), more)
}
