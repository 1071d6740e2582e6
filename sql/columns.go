package sql

import (
	"fmt"
	"slices"
	"strings"
)

// The oids of "default" and "C" in pg_collation are constants of PostgreSQL.
const defaultCollation, collationC = 100, 950

// A column of the view: one of ours, where it comes from, and how it is shown. A nil source is a column left out.
type column struct {
	name   string
	source *attribute
	shown  expression
}

// ref is the source, without its domains, whose checks and casts are of no use here. Of a type that somebody else defined it is what
// the type's output function writes, which only a superuser can define: anybody may define a cast, and it would run as whoever reads.
func (c column) ref() string {
	ref := "a." + ident(c.source.Name)
	switch {
	case !c.source.BuiltIn:
		return fmt.Sprintf(`case when %[1]s is distinct from null then format('%%s', %[1]s) end`, ref)
	case c.source.Domain:
		ref += "::" + c.source.BaseSQL
	}
	return ref
}

// value is the column's expression in the view.
func (c column) value() string {
	if c.source == nil {
		return "null::" + viewTypes[c.name]
	}
	return c.shown.of(c.ref())
}

// collation is what the view's column has, as far as it can depend on the table.
func (c column) collation() uint32 {
	switch {
	case viewTypes[c.name] != "text":
		return 0
	case c.name == "status":
		return collationC
	}
	if c.source == nil || c.source.Collation == 0 {
		return defaultCollation
	}
	return c.source.Collation
}

// viewTypes are the contract's, as pg_catalog.format_type writes them.
var viewTypes = map[string]string{
	"audit_id": "bigint", "user_id": "text", "user_email": "text", "status": "text", "progress": "integer",
	"message": "text", "geo_score": "double precision", "total_pages": "integer", "error": "text",
}

// A mapping is everything that the view and the triggers take from the table.
type mapping struct {
	key     attribute
	columns []column // in the order of ours
}

// sources are the columns of the table that the view shows, the key first.
func (m *mapping) sources() []*attribute {
	all := []*attribute{&m.key}
	for _, c := range m.columns {
		if c.source != nil {
			all = append(all, c.source)
		}
	}
	return all
}

// owners are the columns of the table that say whose a row is, which come first in ours, quoted.
func (m *mapping) owners() []string {
	var names []string
	for _, c := range m.columns[:2] {
		if c.source != nil {
			names = append(names, ident(c.source.Name))
		}
	}
	return names
}

// mapColumns decides what each of our columns comes from. encoding is the server's.
func mapColumns(t *table, names map[string]string, encoding string) (*mapping, error) {
	key, err := findKey(t, names["id"])
	if err != nil {
		return nil, err
	}
	m := &mapping{key: *key}
	for _, name := range ours {
		source, err := findSource(t, names, name)
		if err != nil {
			return nil, err
		}
		c := column{name: name, source: source}
		err = c.adapt(t, encoding)
		if err != nil {
			return nil, err
		}
		m.columns = append(m.columns, c)
	}
	return m, nil
}

// findKey finds the column that holds the audit's id.
func findKey(t *table, mapped string) (*attribute, error) {
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
	if !slices.Contains([]string{"int2", "int4", "int8"}, key.builtInBase()) {
		return nil, fmt.Errorf("column %s of %s is %s: the id of an audit must be smallint, integer or bigint; say which other column identifies a row with --column id=NAME",
			key.Name, t.Display, key.Type)
	}
	return key, nil
}

// findSource finds the table's column for one of ours; nil when there is none and there need not be one.
func findSource(t *table, names map[string]string, name string) (*attribute, error) {
	mapped, given := names[name]
	source := t.column(name)
	if given {
		source = t.written(mapped)
	}
	switch {
	case given && mapped == "":
		return nil, nil
	case given && source == nil:
		return nil, t.lacks(mapped, name)
	case given:
		return source, nil
	}
	if name == "error" {
		// A flag called error beside the text called error_message is not what a viewer wants to read.
		isText := func(a *attribute) bool {
			return a.Category == "S" || a.builtInBase() == "json" || a.builtInBase() == "jsonb"
		}
		other := t.column("error_message")
		if source == nil || other != nil && isText(other) && !isText(source) {
			source = other
		}
	}
	if source == nil && (name == "status" || name == "progress") {
		return nil, fmt.Errorf("%s has no column %s: say which column holds it with --column %[2]s=NAME (it has %[3]s)", t.Display, name, t.names())
	}
	return source, nil
}

// adapt chooses the expression for the source's type, or refuses it. A text takes every type there is.
func (c *column) adapt(t *table, encoding string) error {
	if c.source == nil {
		return nil
	}
	base := c.source.builtInBase()
	allowed, wayOut := "a number (smallint, integer, bigint, real, double precision or numeric)", "leave it out with --column "+c.name+"="
	byType, number := numbers[c.name]
	switch {
	case number:
		c.shown = byType[base]
	case c.name == "status":
		allowed = "text, varchar or an enum"
		if c.source.Category == "S" || c.source.BaseKind == "e" {
			c.shown = statusText
		}
	case base == "text":
		c.shown = asIs
	case base == "jsonb":
		c.shown = jsonbText
	case base == "json" && encoding == "UTF8":
		c.shown = jsonText
	case base == "json":
		c.shown = jsonTextASCII
	default:
		c.shown = asText
	}
	if c.shown != "" {
		return nil
	}
	if c.name == "status" || c.name == "progress" {
		wayOut = "name another one with --column " + c.name + "=NAME"
	}
	return fmt.Errorf("column %s of %s is %s: %s must be %s; %s", c.source.Name, t.Display, c.source.Type, c.name, allowed, wayOut)
}

// builtInBase is the type's name when it is PostgreSQL's own; nobody else's "int4" is one.
func (a *attribute) builtInBase() string {
	if !a.BuiltIn {
		return ""
	}
	return a.Base
}

// written finds a column by the name somebody typed: as it is spelled, then as SQL folds it.
func (t *table) written(name string) *attribute {
	if a := t.column(name); a != nil {
		return a
	}
	if len(name) > 2 && strings.HasPrefix(name, `"`) && strings.HasSuffix(name, `"`) {
		return t.column(strings.ReplaceAll(name[1:len(name)-1], `""`, `"`))
	}
	return t.column(strings.ToLower(name))
}

func (t *table) lacks(mapped, name string) error {
	return fmt.Errorf("%s has no column %s, which --column %s=%[2]s names (it has %[4]s)", t.Display, mapped, name, t.names())
}

// names lists the columns for a message; the first twenty are enough to recognise a table.
func (t *table) names() string {
	names := make([]string, len(t.Columns))
	for i, a := range t.Columns {
		names[i] = a.Name
	}
	switch {
	case len(names) == 0:
		return "no columns"
	case len(names) > 20:
		names = append(names[:20], "...")
	}
	return strings.Join(names, ", ")
}
