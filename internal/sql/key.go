package sql

import (
	"fmt"
	"slices"
)

// where is of whom nobody sees anything. Of integers it is always true, and not idle: it tells the planner that an integer or smallint key
// equals the bigint shown, so that reads use its index.
func (m *mapping) where() string {
	where := "true"
	if m.keyType() == "" {
		where = fmt.Sprintf("a.%[1]s = a.%[1]s::bigint", ident(m.shown.Name))
	}
	if m.hidden != nil {
		where += " and a." + ident(m.hidden.Name) + " is not distinct from null"
	}
	return where
}

// keyType is what [Feed.Key] says.
func (m *mapping) keyType() string {
	switch m.key.builtInBase() {
	case "uuid":
		return "uuid"
	case "text", "varchar":
		return "text"
	}
	return ""
}

// keyVars are what install.sql makes of keys. A text that is too long for a notification, or for a URL, is nobody's.
func (m *mapping) keyVars(vars map[string]string, n naming, t *table) {
	kind := m.keyType()
	vars["from"], vars["where"] = m.base(t)+" as a", m.where()
	vars["shown_key"] = map[string]string{"": "a." + ident(m.shown.Name) + "::bigint", "uuid": m.shown.from("a"), "text": m.shown.from("a") + "::text"}[kind]
	for n, l := range m.lookups {
		vars["from"] += fmt.Sprintf(" left join %s as l%d on l%[2]d.%[3]s = %[4]s", l.table.quoted(), n+1, ident(l.key.Name), l.column.from("a"))
	}
	conditions(vars, n, m.key.Name, kind)
}

// conditions are what the triggers' conditions make of a key, or of a column that holds one.
func conditions(vars map[string]string, n naming, column, kind string) {
	name := ident(column)
	for _, row := range []string{"new", "old"} {
		key := row + "." + name
		none, shown, hash := key+" is null", key+"::pg_catalog.text", "pg_catalog.hashint8("+key+"::pg_catalog.int8)"
		switch kind {
		case "uuid":
			hash = "pg_catalog.uuid_hash(" + key + "::pg_catalog.uuid)"
		case "text":
			none = fmt.Sprintf("coalesce(pg_catalog.octet_length(%s) operator(pg_catalog.>) 255, true)", shown)
			hash = fmt.Sprintf(`pg_catalog.hashtext(%s collate "C")`, shown)
		}
		if mix := n.mix(); mix != 0 {
			hash = fmt.Sprintf("(%s operator(pg_catalog.#) %d)", hash, mix)
		}
		if !n.first() || kind == "text" { // which may look like anything
			shown = fmt.Sprintf("pg_catalog.textcat('%s:', %s)", n, shown)
		}
		vars[row+"_none"], vars[row+"_row"], vars[row+"_hash"] = none, shown, hash
	}
	vars["same"] = fmt.Sprintf("old.%[1]s operator(pg_catalog.=) new.%[1]s", name)
	switch kind {
	case "uuid":
		vars["same"] = fmt.Sprintf("old.%[1]s::pg_catalog.uuid operator(pg_catalog.=) new.%[1]s::pg_catalog.uuid", name)
	case "text":
		vars["same"] = fmt.Sprintf(`old.%[1]s::pg_catalog.text collate "C" operator(pg_catalog.=) new.%[1]s::pg_catalog.text`, name)
	}
}

// keyCollation is the shown key's.
func (m *mapping) keyCollation() uint32 {
	if m.keyType() != "text" {
		return 0
	}
	return m.shown.Collation
}

// findKey finds the column that holds the audit's id.
func findKey(t *table, mapped, feed string) (*attribute, error) {
	key := t.column("id")
	if mapped != "" {
		key = t.written(mapped)
	}
	if mapped != "" && key == nil {
		return nil, t.lacks(mapped, "id")
	}
	for i := range t.Columns {
		if key == nil && t.Columns[i].PrimaryKey {
			key = &t.Columns[i]
		}
	}
	if key == nil {
		return nil, fmt.Errorf("%s has no column id and no primary key of one column: say which column identifies a row with --column id=NAME (it has %s)",
			t.Display, t.names())
	}
	if !slices.Contains([]string{"int2", "int4", "int8", "uuid", "text", "varchar"}, key.builtInBase()) {
		return nil, fmt.Errorf("column %s of %s is %s: the id of a row must be smallint, integer, bigint, uuid, text or varchar; say which other column identifies a row with --column id=NAME",
			key.Name, t.Display, key.Type)
	}
	return key, nil
}
