package sql

import (
	"fmt"
	"slices"
)

// rowCondition returns the condition of the view's rows, which leaves out hidden ones. For an integer key it has a part that is always true
// but not useless: it tells the planner that an integer or smallint key equals the bigint that the view shows, so that reads use its index.
func (m *mapping) rowCondition() string {
	where := "true"
	if m.keyType() == "" {
		where = fmt.Sprintf("a.%[1]s = a.%[1]s::bigint", ident(m.shownKey.Name))
	}
	if m.hidden != nil {
		where += " and " + m.hidden.notHidden()
	}
	return where
}

// keyType returns the value for [Feed.Key].
func (m *mapping) keyType() string {
	switch m.key.builtInBase() {
	case "uuid":
		return "uuid"
	case "text", "varchar":
		return "text"
	}
	return ""
}

// keyVars sets install.sql's variables for keys. A text key that is too long for a notification or a URL counts as missing.
func (m *mapping) keyVars(vars map[string]string, n naming, t *table) {
	kind := m.keyType()
	vars["from"], vars["where"] = m.base(t)+" as a", m.rowCondition()
	vars["shown_key"] = map[string]string{"": "a." + ident(m.shownKey.Name) + "::bigint", "uuid": m.shownKey.ref("a"), "text": m.shownKey.ref("a") + "::text"}[kind]
	for n, l := range m.lookups {
		vars["from"] += fmt.Sprintf(" left join %s as l%d on l%[2]d.%[3]s = %[4]s", l.table.quoted(), n+1, ident(l.key.Name), l.column.ref("a"))
	}
	keyConditions(vars, n, m.key.Name, kind)
}

// keyConditions sets the variables of the triggers' conditions for a key, or for a ring's column that holds one. The condition of a row that
// is to be ignored, or of any row when the variable always is true, must not reach the lock.
func keyConditions(vars map[string]string, n naming, column, kind string) {
	name := ident(column)
	for _, row := range []string{"new", "old"} {
		key := row + "." + name
		shown, hash := key+"::pg_catalog.text", "pg_catalog.hashint8("+key+"::pg_catalog.int8)"
		when, none := "when", key+" is null"
		switch kind {
		case "uuid":
			hash = "pg_catalog.uuid_hash(" + key + "::pg_catalog.uuid)"
		case "text":
			long := fmt.Sprintf("pg_catalog.octet_length(%s) operator(pg_catalog.>) 255", shown)
			when, none = "when "+long+" then false when", "coalesce("+long+", true)"
			hash = fmt.Sprintf(`pg_catalog.hashtext(%s collate "C")`, shown)
		}
		if vars["always"] == "true" {
			when = "when " + none + " then false when false and"
		}
		if mix := n.mix(); mix != 0 {
			hash = fmt.Sprintf("(%s operator(pg_catalog.#) %d)", hash, mix)
		}
		if !n.first() || kind == "text" { // a text key may look like anything
			shown = fmt.Sprintf("pg_catalog.textcat('%s:', %s)", n, shown)
		}
		vars[row+"_when"], vars[row+"_row"], vars[row+"_hash"] = when, shown, hash
	}
	vars["same"] = fmt.Sprintf("old.%[1]s operator(pg_catalog.=) new.%[1]s", name)
	switch kind {
	case "uuid":
		vars["same"] = fmt.Sprintf("old.%[1]s::pg_catalog.uuid operator(pg_catalog.=) new.%[1]s::pg_catalog.uuid", name)
	case "text":
		vars["same"] = fmt.Sprintf(`old.%[1]s::pg_catalog.text collate "C" operator(pg_catalog.=) new.%[1]s::pg_catalog.text`, name)
	}
}

// keyCollation returns the collation of the shown key.
func (m *mapping) keyCollation() uint32 {
	if m.keyType() != "text" {
		return 0
	}
	return m.shownKey.Collation
}

// findKey finds the column that identifies a row.
func findKey(t *table, mapped string) (*attribute, error) {
	key := t.column("id")
	if mapped != "" {
		key = t.columnByName(mapped)
	}
	if mapped != "" && key == nil {
		return nil, t.noColumn(mapped, "%s has no column %s, which --column id=%[2]s names", t.Display, mapped)
	}
	for i := range t.Columns {
		if key == nil && t.Columns[i].PrimaryKey {
			key = &t.Columns[i]
		}
	}
	if key == nil {
		missing := &noColumnError{table: t, text: t.Display + " has no column id and no primary key of one column: say which column identifies a row with --column id=NAME"}
		for _, a := range t.Columns {
			if a.Unique && kindOf(&a) != "" && printable(a.Name) && len(missing.likely) < maxLikely {
				missing.likely = append(missing.likely, a.Name)
			}
		}
		return nil, missing
	}
	if !slices.Contains([]string{"int2", "int4", "int8", "uuid", "text", "varchar"}, key.builtInBase()) {
		return nil, fmt.Errorf("column %s of %s is %s: the id of a row must be smallint, integer, bigint, uuid, text or varchar; say which other column identifies a row with --column id=NAME, which can be a generated column of one of these types",
			key.Name, t.Display, key.Type)
	}
	return key, nil
}
