package sql

import (
	"fmt"
	"slices"
)

// The oids of "default" and "C" in pg_collation are constants of PostgreSQL.
const defaultCollation, collationC = 100, 950

// A column is one column of the view.
type column struct {
	name   string
	source *source // nil: it is left out
	shown  string  // its SQL expression; "": null
}

// ref returns the SQL for the column in a row called alias, cast to the type below its domains. For a type that is not built in, it returns
// the output of the type's output function, which only a superuser can define: anybody can define a cast, which would run with the rights
// of the reader.
func (a *attribute) ref(alias string) string {
	ref := alias + "." + ident(a.Name)
	switch {
	case !a.BuiltIn:
		return fmt.Sprintf(`case when %[1]s is distinct from null then format('%%s', %[1]s) end`, ref)
	case a.Domain:
		ref += "::" + a.BaseSQL
	}
	return ref
}

// value returns the column's expression in the view.
func (c column) value() string {
	if c.shown == "" {
		return "null::" + viewTypes[c.name]
	}
	return c.shown
}

// collation returns the collation of the view's column.
func (c column) collation() uint32 {
	switch {
	case viewTypes[c.name] != "text":
		return 0
	case c.name == "status":
		return collationC
	}
	if c.source == nil || !c.source.isColumn() || c.source.column.Collation == 0 {
		return defaultCollation
	}
	return c.source.column.Collation
}

// viewTypes are the types of the view's columns, as pg_catalog.format_type writes them.
var viewTypes = map[string]string{
	"audit_id": "bigint", "group_id": "text", "fields": "text", "user_id": "text", "user_email": "text", "status": "text", "progress": "integer",
	"message": "text", "geo_score": "double precision", "total_pages": "integer", "error": "text",
}

// A mapping is everything that the view and the triggers take from the table.
type mapping struct {
	key      attribute  // the table's key, for the triggers
	shownKey *attribute // the same key in what the view reads
	columns  []column   // in the order of viewColumns; those that not every feed has come last
	fields   []field
	hidden   *attribute // Options.Hide; nil: none
	lookups  []lookup
	rules    []rule
	rings    []ring
	encoding string // the server's

	own       *table   // describes Options.View, which the view then reads instead of the table; nil: none; see loadView
	query     string   // Options.View
	ownOwners []string // with own, the table's columns that name an owner, judged by their names
}

// base returns what the view reads from.
func (m *mapping) base(t *table) string {
	if m.own != nil {
		return asTable(m.query)
	}
	return t.quoted()
}

// A lookup finds an owner in another table: in the row whose key equals a column of the adopted table.
type lookup struct {
	column     *attribute
	table      *table
	key, shown *attribute
}

// sources returns the columns that the view reads, the key first.
func (m *mapping) sources() []*attribute {
	all := []*attribute{m.shownKey}
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

// owners returns the table's columns that name an owner, quoted, each once.
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

// hasOwner reports whether the view has a column that names an owner.
func (m *mapping) hasOwner() bool {
	return slices.ContainsFunc(m.columns, func(c column) bool {
		return c.source != nil && (c.name == "user_id" || c.name == "user_email" || c.name == "group_id")
	})
}

// mapColumns decides from which source each column of the view comes. encoding is the server's. Its error has all that is wrong, joined.
func mapColumns(t *table, o Options, lookups []lookup, encoding string) (*mapping, error) {
	var refused refusals
	key, err := findKey(t, o.Columns["id"])
	refused.add(err)
	m := &mapping{shownKey: key, lookups: lookups, encoding: encoding}
	m.rules, err = parseRules(t, o.Words)
	refused.add(err)
	for _, name := range append(slices.Clone(viewColumns), "group_id") {
		switch {
		case name == "group_id" && o.Columns[name] == "":
			continue
		case o.feed() != defaultFeed && (name == "geo_score" || name == "total_pages"): // only audits have them
			m.columns = append(m.columns, column{name: name})
			continue
		}
		s, err := findSource(t, o, name)
		c := column{name: name, source: m.throughLookup(s)}
		if err == nil && s == nil && name == "progress" { // it was left out
			c.shown = m.unknownProgress()
		} else if err == nil {
			err = c.adapt(t, m, o.Words, encoding)
		}
		refused.add(err)
		m.columns = append(m.columns, c)
	}
	refused.add(m.checkOwner(t, o))
	for _, text := range o.Fields {
		f, err := parseField(t, text)
		refused.add(err)
		m.fields = append(m.fields, f)
	}
	if len(m.fields) > 0 && len(refused) == 0 {
		m.columns = append(m.columns, column{name: "fields", shown: m.shownFields(encoding)})
	}
	m.hidden, err = findHidden(t, o)
	if refused.add(err); len(refused) > 0 {
		return nil, refused.err()
	}
	m.key = *key
	return m, nil
}

const ownerRemedy = "name one with --column user_id=, user_email= or group_id=, or let every valid token see every row with --public"

// checkOwner refuses a new feed whose rows nobody would see.
func (m *mapping) checkOwner(t *table, o Options) error {
	if !o.needOwner || o.Public || m.hasOwner() || o.Columns["user_id"]+o.Columns["user_email"]+o.Columns["group_id"] != "" {
		return nil
	}
	remedy := ownerRemedy
	if o.View != "" {
		remedy = "select one as user_id, user_email or group_id, or let every valid token see every row with --public"
	}
	return &noColumnError{table: t, likely: t.likely("user_id"), text: fmt.Sprintf("no column of %s says whose a row is, so that nobody would see any: %s", t.Display, remedy)}
}

// unknownProgress returns the expression for a progress that is not known: 100 at completed, otherwise 0.
func (m *mapping) unknownProgress() string {
	return "case when " + m.columns[slices.Index(viewColumns, "status")].shown + " = 'completed' then 100 else 0 end"
}

// throughLookup returns s or, when a lookup uses its column, the source in the other table.
func (m *mapping) throughLookup(s *source) *source {
	for n, l := range m.lookups {
		if s != nil && s.isColumn() && s.column.Name == l.column.Name {
			return &source{column: l.column, lookedUp: l.shown, alias: fmt.Sprintf("l%d", n+1)}
		}
	}
	return s
}

// needed are the columns of the view that cannot do without a source unless an option says so: what it is, and the option.
var needed = map[string]string{
	"status":   "a text, an enum, an integer or a boolean, with --column status=NAME",
	"progress": "a number, with --column progress=NAME, or leave it out with --column progress=",
}

// findSource returns the source for a column of the view. It returns nil when there is none and none is needed.
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
		// Beside a text error_message, a column error that is not a text is a flag, which viewers do not want to read.
		other := t.column("error_message")
		if a == nil || other != nil && other.isText() && !a.isText() {
			a = other
		}
	}
	if want := needed[name]; a == nil && want != "" {
		return nil, &noColumnError{table: t, likely: t.likely(name), text: fmt.Sprintf("%s has no column %s: say which column holds it, %s", t.Display, name, want)}
	}
	if a == nil {
		return nil, nil
	}
	return &source{column: a}, nil
}

// adapt chooses the expression for the source's type, or refuses it. Every type can be shown as a text.
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
	case s.isColumn() && byType[s.column.builtInBase()] != "":
		c.shown = byType[s.column.builtInBase()].of(s.ref())
		return nil
	case s.isColumn() && s.column.Category != "S":
		wayOut := "leave it out with --column " + c.name + "="
		return fmt.Errorf("column %s of %s is %s: %s must be a number (smallint, integer, bigint, real, double precision or numeric), or a text that is one; %s", s.column.Name, t.Display,
			s.column.Type, c.name, wayOut)
	}
	n := "(" + s.number(encoding) + ")"
	switch c.name { // 1e-9 makes up for rounding in double precision: 100 * 0.29 must be 29
	case "progress":
		unknown := "0"
		if !s.isColumn() { // queues replace a job's progress by its result
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

// isText reports whether a person can read the column's values: a text, or json.
func (a *attribute) isText() bool {
	return a.Category == "S" || a.builtInBase() == "json" || a.builtInBase() == "jsonb"
}

// builtInBase returns Base if the type is PostgreSQL's own, otherwise "": somebody else may have defined a type int4.
func (a *attribute) builtInBase() string {
	if !a.BuiltIn {
		return ""
	}
	return a.Base
}
