package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// pin holds the names of tables until the transaction ends: whoever owns one could give its name to a view in the middle, which would then be
// read, or shown, with the rights of whoever installs. Of a table of which the current role may read some columns alone the name is only looked up.
func pin(ctx context.Context, conn *pgx.Conn, tables ...*table) error {
	for _, t := range tables {
		if t.OID == 0 {
			continue
		}
		var readable *bool
		if err := conn.QueryRow(ctx, `select pg_catalog.has_table_privilege($1::oid, 'select')`, t.OID).Scan(&readable); err != nil {
			return fmt.Errorf("look up table %s: %w", t.Display, err)
		}
		if readable != nil && *readable { // a lock takes a right to the whole table
			if err := execScript(ctx, conn, fmt.Sprintf("lock table only %s in access share mode", t.quoted())); err != nil {
				return fmt.Errorf("lock %s: %w", t.Display, err)
			}
		}
		var same bool // not, also when the name was given away before the lock was there
		if err := conn.QueryRow(ctx, `select coalesce(pg_catalog.to_regclass($2::text)::oid = $1::oid, false)`, t.OID, t.quoted()).Scan(&same); err != nil {
			return fmt.Errorf("look up table %s: %w", t.Display, err)
		}
		if !same {
			return fmt.Errorf("%s is another table than a moment ago: try again", t.Display)
		}
	}
	return nil
}

// tables are all that an install reads or makes triggers on.
func (m *mapping) tables(t *table) []*table {
	all := []*table{t}
	for _, l := range m.lookups {
		all = append(all, l.table)
	}
	for _, r := range m.rings {
		all = append(all, r.table)
	}
	return all
}
