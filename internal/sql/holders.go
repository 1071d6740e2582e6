package sql

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// busyError returns the error that no lock was free, with the sessions that hold it.
func busyError(ctx context.Context, conn *pgx.Conn, operation string, p *Plan, waited time.Duration) error {
	held := "nobody holds it now"
	if who := holders(ctx, conn, p); len(who) > 0 {
		held = "it is held by " + strings.Join(who, "; ")
	}
	return fmt.Errorf("%s: no lock on %s within %v: %s; nothing was changed; try again when it is free",
		operation, p.Table, waited.Round(100*time.Millisecond), held)
}

// holders describes the sessions that hold a lock in the way of install or uninstall: on the table and its partitions any lock but a reader's,
// on the view any lock, and the lock of another install. The result is only for messages, so after an error it is empty.
func holders(ctx context.Context, conn *pgx.Conn, p *Plan) []string {
	var oid uint32
	if p.table != nil {
		oid = p.table.OID
	}
	defer rollback(ctx, conn)
	if execScript(ctx, conn, beginReading+"; "+searchPath) != nil { // with it, operators of others in the session's search_path cannot run
		return nil
	}
	who, _ := texts(ctx, conn, "pg_locks", `
		select case when l.pid is null then 'a prepared transaction (see pg_prepared_xacts)' else pg_catalog.format('process %s (%s, %s%s)', l.pid,
		           coalesce(nullif(a.application_name, ''), nullif(a.backend_type, 'client backend'), 'no application_name'),
		           coalesce(a.state, a.backend_type, 'state not visible'),
		           ', in a transaction for ' || (pg_catalog.clock_timestamp() - a.xact_start)::interval(0)) end
		from (
			select l.pid from pg_catalog.pg_locks l
			where l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
			  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
			  and (l.locktype = 'relation' and (l.mode not in ('AccessShareLock', 'RowShareLock')
					and (l.relation = $1 or l.relation in (select relid from pg_catalog.pg_partition_tree($1::pg_catalog.oid)))
				or $2 and l.relation = $1
				or l.relation = (select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
					where n.nspname = 'auditstream' and c.relname = 'progress'))
				or l.locktype = 'advisory' and l.objsubid = 1 and ((l.classid::bigint << 32) | l.objid::bigint) = pg_catalog.hashtextextended('auditstream', 0))
			group by l.pid
		) l left join pg_catalog.pg_stat_activity a on a.pid = l.pid
		order by a.xact_start limit 5`, oid, p.lockReaders)
	return who
}
