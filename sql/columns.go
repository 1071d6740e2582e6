package sql

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
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

// A field is one that the operator wants to be shown beside ours.
type field struct {
	name   string
	source *source
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

// parseField reads NAME, or NAME=SOURCE.
func parseField(t *table, text string) (field, error) {
	name, from, ok := strings.Cut(text, "=")
	if !ok {
		name = strings.ReplaceAll(text, ".", "_")
		from = text
	}
	if !fieldName.MatchString(name) || slices.Contains(ours, name) || name == "id" || name == "audit_id" || name == "group_id" {
		return field{}, usagef("--field %s: give NAME or NAME=SOURCE, NAME of letters, digits and _, and none that is shown already (id, %s)", text, strings.Join(ours[2:], ", "))
	}
	s, err := parseSource(t, "--field "+name, from)
	return field{name, s}, err
}

var fieldName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// shownFields is the fields as members of a JSON object, with a comma before each.
func (m *mapping) shownFields(encoding string) string {
	var all []string
	for _, f := range m.fields {
		all = append(all, fmt.Sprintf(`',"%s":' || %s`, f.name, f.source.json(encoding)))
	}
	return "concat(" + strings.Join(all, ", ") + ")"
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
