package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A ring is another table whose rows belong to rows of the feed. A change there notifies of the row that its column names.
type ring struct {
	table  *table
	column *attribute
}

// loadRings reads TABLE=COLUMN. Its error has all that is wrong, joined.
func loadRings(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, texts []string) (all []ring, err error) {
	var refused refusals
	for _, text := range texts {
		r, err := loadRing(ctx, conn, t, m, text)
		if err == nil && (r.table.OID == t.OID || slices.ContainsFunc(all, func(other ring) bool { return other.table.OID == r.table.OID })) {
			err = usagef("--ring %s: %s is named already; a table has one column that names rows", text, r.table.Display)
		}
		if refused.add(err); err == nil {
			all = append(all, r)
		}
	}
	return all, refused.err()
}

// loadRing reads TABLE=COLUMN. The search_path is empty, so a table without a schema is looked for in the schema of the feed's table.
func loadRing(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, text string) (r ring, err error) {
	name, column, ok := strings.Cut(text, "=")
	parts := splitName(name)
	if !ok || len(parts) == 0 || len(parts) > 2 || column == "" {
		return r, usagef("--ring %s: give TABLE=COLUMN, like job_progress=job_id: a change of a row of TABLE is one of the row that its COLUMN names", text)
	}
	spellings := [][]string{parseName(name), parts}
	for i, spelling := range spellings {
		if len(spelling) == 1 {
			spellings[i] = []string{t.Schema, spelling[0]}
		}
	}
	oid, err := firstTable(ctx, conn, spellings...)
	if err != nil {
		return r, fmt.Errorf("look up table %s: %w", name, err)
	}
	if oid == 0 {
		if len(parts) == 1 {
			name = t.Schema + "." + name
		}
		return r, fmt.Errorf("--ring %s: there is no table %s: name it with its schema", text, name)
	}
	if r.table, err = loadTable(ctx, conn, oid); err != nil {
		return r, err
	}
	r.column = r.table.columnByName(column)
	switch {
	case r.column == nil:
		return r, r.table.noColumn(column, "--ring %s: %s has no column %s", text, r.table.Display, column)
	case kindOf(r.column) != kindOf(&m.key):
		return r, fmt.Errorf("--ring %s: %s of %s is %s, and the id, %s, is %s, and both must be integers, both uuids, or both texts: name the column that holds the id; where it is this one, change its type, or leave out the --ring: then a change there is found by the safety net, within 10 s", text, r.column.Name, r.table.Display, r.column.Type, m.key.Name, m.key.Type)
	}
	return r, nil
}

// ringSQL is the part of install.sql that makes the triggers of one ring: all but that for inserts are as on the feed's table.
var ringSQL = between(installSQL, "-- of a ring alone\n", "\\endif\n") + between(installSQL, "and the trigger for inserts below.\n", ":rings\n")

// ringTriggers returns the statements that make the triggers of all rings. vars are those of install.sql.
func ringTriggers(rings []ring, m *mapping, n naming, vars map[string]string) string {
	var all []string
	for _, r := range rings {
		own := map[string]string{"table": r.table.quoted(), "class": vars["class"], "mask": vars["mask"], "always": vars["always"], "key": ident(r.column.Name)}
		for _, event := range events {
			own["t_"+event] = ident(n.ring(event))
		}
		keyConditions(own, n, r.column.Name, m.keyType())
		all = append(all, substitute(ringSQL, own))
	}
	return strings.Join(all, "")
}
