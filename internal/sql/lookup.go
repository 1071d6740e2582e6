package sql

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// loadLookups reads COLUMN=SCHEMA.TABLE.KEY:OWNER. The owner of a row is OWNER in the row of TABLE whose KEY equals the row's COLUMN. The
// search_path is empty, so the schema must be given; names are found as those of --table and --column are. Its error has all that is wrong, joined.
func loadLookups(ctx context.Context, conn *pgx.Conn, t *table, texts []string) (all []lookup, err error) {
	var refused refusals
	for _, text := range texts {
		l, err := loadLookup(ctx, conn, t, text)
		if refused.add(err); err == nil {
			all = append(all, l)
		}
	}
	return all, refused.err()
}

func loadLookup(ctx context.Context, conn *pgx.Conn, t *table, text string) (l lookup, err error) {
	column, target, ok := strings.Cut(text, "=")
	target, owner, ok2 := strings.Cut(target, ":")
	parts := splitName(target)
	if !ok || !ok2 || len(parts) != 3 {
		return l, usagef("--lookup %s: give COLUMN=SCHEMA.TABLE.KEY:OWNER, like created_by=public.users.id:uid", text)
	}
	name := parts[0] + "." + parts[1]
	oid, _, _, err := findTable(ctx, conn, name)
	if err != nil {
		return l, err
	}
	if oid == 0 {
		return l, fmt.Errorf("--lookup %s: there is no table %s: name one that exists", text, name)
	}
	l.column = t.columnByName(column)
	if l.table, err = loadTable(ctx, conn, oid); err != nil {
		return l, err
	}
	l.key, l.shown = l.table.columnByName(parts[2]), l.table.columnByName(owner)
	switch {
	case l.column == nil:
		return l, t.noColumn(column, "--lookup %s: %s has no column %s", text, t.Display, column)
	case l.key == nil:
		return l, l.table.noColumn(parts[2], "--lookup %s: %s has no column %s", text, l.table.Display, parts[2])
	case l.shown == nil:
		return l, l.table.noColumn(owner, "--lookup %s: %s has no column %s", text, l.table.Display, owner)
	case !l.key.Unique:
		return l, fmt.Errorf("--lookup %s: nothing makes %s of %s unique, so that a row could have several owners: name a column with a primary key or a unique constraint of its own, or %s", text, l.key.Name, l.table.Display, joinInView)
	case kindOf(l.key) == "" || kindOf(l.key) != kindOf(l.column):
		return l, fmt.Errorf("--lookup %s: %s is %s and %s is %s: both must be integers, both uuids, or both texts; name columns that are, or %s", text, l.key.Name, l.key.Type, l.column.Name, l.column.Type, joinInView)
	case l.key.Collation != l.column.Collation:
		return l, fmt.Errorf("--lookup %s: %s and %s have different collations, which PostgreSQL cannot compare: name columns with the same collation, or %s", text, l.key.Name, l.column.Name, joinInView)
	}
	return l, nil
}

// joinInView is the way out for an owner that no lookup can find.
const joinInView = "select the owner in a query of your own, with --view"

// kindOf returns which keys a column can be compared with: integer, text, uuid, or "" for none.
func kindOf(a *attribute) string {
	switch base := a.builtInBase(); base {
	case "int2", "int4", "int8":
		return "integer"
	case "text", "varchar":
		return "text"
	case "uuid":
		return base
	}
	return ""
}
