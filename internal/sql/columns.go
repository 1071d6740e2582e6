package sql

import (
	"fmt"
	"slices"
)

// The oids of "default" and "C" in pg_collation are constants of PostgreSQL.
const defaultCollation, collationC = 100, 950

// A column of the view: one of ours, where it comes from, and how it is shown. Without a source it is left out.
type column struct {
	name   string
	source *source
	shown  string // in SQL
}

// from is the column of a row called alias, without its domains, whose checks and casts are of no use here. Of a type that somebody else
// defined it is what the type's output function writes, which only a superuser can define: anybody may define a cast, and it would run as whoever
// reads.
func (a *attribute) from(alias string) string {
	ref := alias + "." + ident(a.Name)
	switch {
	case !a.BuiltIn:
		return fmt.Sprintf(`case when %[1]s is distinct from null then format('%%s', %[1]s) end`, ref)
	case a.Domain:
		ref += "::" + a.BaseSQL
	}
	return ref
}

// value is the column's expression in the view.
func (c column) value() string {
	if c.shown == "" {
		return "null::" + viewTypes[c.name]
	}
	return c.shown
}

// collation is what the view's column has, as far as it can depend on the table.
func (c column) collation() uint32 {
	switch {
	case viewTypes[c.name] != "text":
		return 0
	case c.name == "status":
		return collationC
	}
	if c.source == nil || !c.source.plain() || c.source.column.Collation == 0 {
		return defaultCollation
	}
	return c.source.column.Collation
}

// viewTypes are the contract's, as pg_catalog.format_type writes them.
var viewTypes = map[string]string{
	"audit_id": "bigint", "group_id": "text", "fields": "text", "user_id": "text", "user_email": "text", "status": "text", "progress": "integer",
	"message": "text", "geo_score": "double precision", "total_pages": "integer", "error": "text",
}

// A mapping is everything that the view and the triggers take from the table.
type mapping struct {
	key     attribute  // the table's, which triggers take
	shown   *attribute // the same in what the view reads
	columns []column   // in the order of ours, which what not every feed has follows
	fields  []field
	hidden  *attribute // of rows that have it nobody sees anything
	lookups []lookup
	rules   []rule
	rings   []ring

	own       *table // what the view reads in place of the table, where it is the operator's query; see loadView
	query     string
	ownOwners []string // the table's columns that say whose a row is, as far as their names tell
}

// base is what the view reads.
func (m *mapping) base(t *table) string {
	if m.own != nil {
		return asTable(m.query)
	}
	return t.quoted()
}

// A lookup finds an owner in another table, by a column of the table.
type lookup struct {
	column     *attribute
	table      *table
	key, shown *attribute
}

// sources are the columns of the table that the view shows, the key first.
func (m *mapping) sources() []*attribute {
	all := []*attribute{m.shown}
	for _, c := range m.columns {
		if c.source != nil {
			all = append(all, c.source.columns()...)
		}
	}
	for _, f := range m.fields {
		all = append(all, f.source.columns()...)
	}
	for _, r := range m.rules {
		all = append(all, r.source.columns()...)
	}
	if m.hidden != nil {
		all = append(all, m.hidden)
	}
	return all
}

// owners are the columns of the table that say whose a row is, quoted, each once.
func (m *mapping) owners() []string {
	if m.own != nil {
		return m.ownOwners
	}
	var names []string
	for _, c := range m.columns {
		if c.source == nil || c.name != "user_id" && c.name != "user_email" && c.name != "group_id" {
			continue
		}
		for _, a := range c.source.columns() {
			if name := ident(a.Name); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// owned says whether the view says whose a row is.
func (m *mapping) owned() bool {
	return slices.ContainsFunc(m.columns, func(c column) bool {
		return c.source != nil && (c.name == "user_id" || c.name == "user_email" || c.name == "group_id")
	})
}

// mapColumns decides what each of our columns comes from. encoding is the server's.
func mapColumns(t *table, o Options, lookups []lookup, encoding string) (*mapping, error) {
	key, err := findKey(t, o.Columns["id"], o.feed())
	if err != nil {
		return nil, err
	}
	m := &mapping{key: *key, shown: key, lookups: lookups}
	if m.rules, err = parseRules(t, o.Words); err != nil {
		return nil, err
	}
	for _, name := range append(slices.Clone(ours), "group_id") {
		switch {
		case name == "group_id" && o.Columns[name] == "":
			continue
		case o.feed() != defaultFeed && (name == "geo_score" || name == "total_pages"): // which audits alone have
			m.columns = append(m.columns, column{name: name})
			continue
		}
		s, err := findSource(t, o, name)
		if err != nil {
			return nil, err
		}
		c := column{name: name, source: m.looked(s)}
		if c.source == nil && name == "progress" { // it was left out
			c.shown = m.unknownProgress()
		} else if err = c.adapt(t, m, o.Words, encoding); err != nil {
			return nil, err
		}
		m.columns = append(m.columns, c)
	}
	for _, text := range o.Fields {
		f, err := parseField(t, text)
		if err != nil {
			return nil, err
		}
		m.fields = append(m.fields, f)
	}
	if len(m.fields) > 0 {
		m.columns = append(m.columns, column{name: "fields", shown: m.shownFields(encoding)})
	}
	if o.Hide != "" {
		if m.hidden = t.written(o.Hide); m.hidden == nil {
			return nil, fmt.Errorf("%s has no column %s, which --hide names (it has %s)", t.Display, o.Hide, t.names())
		}
	}
	return m, nil
}

// unknownProgress is the progress of rows of which none is known.
func (m *mapping) unknownProgress() string {
	return "case when " + m.columns[slices.Index(ours, "status")].shown + " = 'completed' then 100 else 0 end"
}

// looked is a source in the other table, where a lookup finds it.
func (m *mapping) looked(s *source) *source {
	for n, l := range m.lookups {
		if s != nil && s.plain() && s.column.Name == l.column.Name {
			return &source{column: l.column, elsewhere: l.shown, alias: fmt.Sprintf("l%d", n+1)}
		}
	}
	return s
}

// findSource finds the table's column for one of ours; nil when there is none and there need not be one.
func findSource(t *table, o Options, name string) (*source, error) {
	mapped, given := o.Columns[name]
	a := t.column(name)
	switch {
	case given && mapped == "":
		return nil, nil
	case given:
		return parseSource(t, "--column "+name, mapped)
	}
	if name == "error" {
		// A flag called error beside the text called error_message is not what a viewer wants to read.
		isText := func(a *attribute) bool {
			return a.Category == "S" || a.builtInBase() == "json" || a.builtInBase() == "jsonb"
		}
		other := t.column("error_message")
		if a == nil || other != nil && isText(other) && !isText(a) {
			a = other
		}
	}
	if a == nil && (name == "status" || name == "progress") {
		return nil, fmt.Errorf("%s has no column %s: say which column holds it with --column %[2]s=NAME (it has %[3]s)", t.Display, name, t.names())
	}
	if a == nil {
		return nil, nil
	}
	return &source{column: a}, nil
}

// adapt chooses the expression for the source's type, or refuses it. A text takes every type there is.
func (c *column) adapt(t *table, m *mapping, words []Word, encoding string) (err error) {
	s := c.source
	if s == nil {
		return nil
	}
	byType, number := numbers[c.name]
	switch {
	case c.name == "status":
		c.shown, err = statusOf(s, m.rules, words, encoding)
		return err
	case !number:
		c.shown = s.text(encoding)
		return nil
	case s.plain() && byType[s.column.builtInBase()] != "":
		c.shown = byType[s.column.builtInBase()].of(s.from())
		return nil
	case s.plain() && s.column.Category != "S":
		wayOut := "leave it out with --column " + c.name + "="
		return fmt.Errorf("column %s of %s is %s: %s must be a number (smallint, integer, bigint, real, double precision or numeric), or a text that is one; %s", s.column.Name, t.Display,
			s.column.Type, c.name, wayOut)
	}
	n := "(" + s.number(encoding) + ")"
	switch c.name { // a millionth of a millionth makes up for what 29 of 100 lose in double precision
	case "progress":
		unknown := "0"
		if !s.plain() { // queues put a job's result where its progress was
			unknown = m.unknownProgress()
		}
		c.shown = fmt.Sprintf("least(greatest(floor(coalesce(%s, %s) + 1e-9), 0), 100)::int", n, unknown)
	case "total_pages":
		c.shown = fmt.Sprintf("case when %[1]s is not null then least(greatest(floor(%[1]s + 1e-9), 0), 2147483647)::int end", n)
	default:
		c.shown = n
	}
	return nil
}

// builtInBase is the type's name when it is PostgreSQL's own; nobody else's "int4" is one.
func (a *attribute) builtInBase() string {
	if !a.BuiltIn {
		return ""
	}
	return a.Base
}
