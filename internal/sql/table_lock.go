package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// lockNames locks tables so that their names stay theirs until the transaction ends. Otherwise a table's owner could give its name to a view
// meanwhile, which would be read with the rights of the current role. When the current role may read only some columns of a table, it
// cannot lock the table, and lockNames only checks the name.
func lockNames(ctx context.Context, conn *pgx.Conn, tables ...*table) error {
	for _, t := range tables {
		if t.OID == 0 {
			continue
		}
		var readable *bool
		if err := conn.QueryRow(ctx, `select pg_catalog.has_table_privilege($1::oid, 'select')`, t.OID).Scan(&readable); err != nil {
			return fmt.Errorf("look up table %s: %w", t.Display, err)
		}
		if readable != nil && *readable { // LOCK needs a right to the whole table
			if err := execScript(ctx, conn, fmt.Sprintf("lock table only %s in access share mode", t.quoted())); err != nil {
				return fmt.Errorf("lock %s: %w", t.Display, err)
			}
		}
		var same bool // it is false, too, when the name was given away before the lock was held
		if err := conn.QueryRow(ctx, `select coalesce(pg_catalog.to_regclass($2::text)::oid = $1::oid, false)`, t.OID, t.quoted()).Scan(&same); err != nil {
			return fmt.Errorf("look up table %s: %w", t.Display, err)
		}
		if !same {
			return fmt.Errorf("%s is another table than a moment ago: try again", t.Display)
		}
	}
	return nil
}

// tables returns the tables that an install reads or makes triggers on.
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
