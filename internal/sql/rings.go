package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A ring is a table whose rows are about rows of the feed's: what changes there is announced as a change of the row that its column names.
type ring struct {
	table  *table
	column *attribute
}

// loadRings reads TABLE=COLUMN. The search_path is empty, so that a table without a schema is looked for beside the feed's.
func loadRings(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, texts []string) (all []ring, err error) {
	for _, text := range texts {
		name, column, ok := strings.Cut(text, "=")
		parts := parseName(name)
		if !ok || len(parts) == 0 || len(parts) > 2 || column == "" {
			return nil, usagef("--ring %s: give TABLE=COLUMN, like job_progress=job_id: a change of a row of TABLE is one of the row that its COLUMN names", text)
		}
		if len(parts) == 1 {
			parts = []string{t.Schema, parts[0]}
		}
		oid, _, _, err := findTable(ctx, conn, ident(parts...))
		if err != nil {
			return nil, err
		}
		if oid == 0 {
			return nil, fmt.Errorf("--ring %s: there is no table %s: name it with its schema", text, strings.Join(parts, "."))
		}
		r := ring{}
		if r.table, err = loadTable(ctx, conn, oid); err != nil {
			return nil, err
		}
		r.column = r.table.written(column)
		switch {
		case r.column == nil:
			return nil, fmt.Errorf("--ring %s: %s has no column %s (it has %s)", text, r.table.Display, column, r.table.names())
		case kindOf(r.column) != kindOf(&m.key):
			return nil, fmt.Errorf("--ring %s: %s of %s is %s, and the id, %s, is %s: name the column that holds the id", text, r.column.Name, r.table.Display, r.column.Type, m.key.Name, m.key.Type)
		case oid == t.OID || slices.ContainsFunc(all, func(other ring) bool { return other.table.OID == oid }):
			return nil, usagef("--ring %s: %s is named already; a table has one column that names rows", text, r.table.Display)
		}
		all = append(all, r)
	}
	return all, nil
}

// ringSQL is the part of install.sql that makes one ring's triggers.
var ringSQL = between(installSQL, "-- of one ring\n", "-- end of ring\n")

// ringTriggers are the statements that make the rings' triggers. vars are install.sql's.
func ringTriggers(rings []ring, m *mapping, n naming, vars map[string]string) string {
	var all []string
	for _, r := range rings {
		own := map[string]string{"ring": r.table.quoted(), "class": vars["class"], "mask": vars["mask"], "look": vars["look"]}
		for _, event := range events {
			own["r_"+event] = ident(n.ring(event))
		}
		conditions(own, n, r.column.Name, m.keyType())
		all = append(all, substitute(ringSQL, own))
	}
	return strings.Join(all, "")
}

// wants says whether one of some rings has a trigger.
func wants(rings []ring, g trigger) bool {
	return slices.ContainsFunc(rings, func(r ring) bool { return r.table.OID == g.OID })
}
