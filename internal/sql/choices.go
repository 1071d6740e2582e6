package sql

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// choices are one row of auditstream.choices: the options of the last install, and what it made. The row stays until uninstall. The owner of
// the schema can write it, so it is only compared with the catalog and never run.
type choices struct {
	Feed    string
	Options chosenOptions
	Made    madeObjects
}

// chosenOptions are the options of an install.
type chosenOptions struct {
	Asked    string            `json:"asked"`   // the script's checksum; "" when psql ran it
	Columns  map[string]string `json:"columns"` // Options.Columns, as the table spells them
	Roles    []string          `json:"roles"`   // every Options.Role so far
	Triggers bool              `json:"triggers"`
	Always   bool              `json:"always"`

	// The fields down to HasFields are for serve: see Feed.
	Key       string   `json:"key,omitempty"`
	Ends      []string `json:"ends,omitempty"`
	Deleted   string   `json:"deleted,omitempty"`
	Public    bool     `json:"public,omitempty"`
	Groups    bool     `json:"groups,omitempty"`
	HasFields bool     `json:"has_fields,omitempty"`

	Words   []Word   `json:"words,omitempty"`
	Fields  []string `json:"fields,omitempty"`
	Lookups []string `json:"lookups,omitempty"`
	Rings   []string `json:"rings,omitempty"`
	Hide    string   `json:"hide,omitempty"`
	View    string   `json:"view,omitempty"`
	Report  string   `json:"report,omitempty"` // Options.report
}

// madeObjects is the result of install.sql's state query.
type madeObjects struct {
	Installer       string            `json:"installer"`
	Server          int               `json:"server"` // PostgreSQL's major version: each version writes definitions in its own way
	Schema          string            `json:"schema"` // Schema, Name and Owner are those of the only table that the view reads
	Name            string            `json:"name"`
	Owner           string            `json:"owner"`
	Sources         map[string]string `json:"sources"` // for each column of the view the table's column that it is made of
	Indexed, Unique bool              // of the key
	Objects         map[string]object `json:"objects"`
}

type object struct {
	Owner, Text, Tree, Off string
	Super                  bool // the owner is a superuser
}

// readableSQL returns a row when the current role may read the choices.
const readableSQL = `select 'yes' from pg_catalog.pg_class k join pg_catalog.pg_namespace n on n.oid = k.relnamespace and n.nspname = 'auditstream'
	where k.relname = 'choices' and k.relkind = 'r' and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(k.oid, 'select')
		and 3 = (select pg_catalog.count(*) from pg_catalog.pg_attribute a where a.attrelid = k.oid and a.attnum > 0 and not a.attisdropped
			and (a.attname, a.atttypid) in (('feed', 'text'::pg_catalog.regtype), ('options', 'jsonb'::pg_catalog.regtype), ('made', 'jsonb'::pg_catalog.regtype)))`

// loadChoices reads the rows, and runs no code of the table's owner: TABLESAMPLE works only on tables, so no view's function runs, and
// format() uses the types' own output functions, so no cast does. It returns none when the rows cannot be read.
func loadChoices(ctx context.Context, conn *pgx.Conn) (all []*choices, err error) {
	readable, err := texts(ctx, conn, "auditstream.choices", readableSQL)
	if err != nil || len(readable) == 0 {
		return nil, err
	}
	type row struct{ Feed, Options, Made string }
	rows, err := collect(ctx, conn, "auditstream.choices", pgx.RowToStructByPos[row], `select pg_catalog.format('%s', c.feed), pg_catalog.format('%s', c.options),
		pg_catalog.format('%s', c.made) from only auditstream.choices c tablesample pg_catalog.system (100) order by 1`)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		c := &choices{Feed: r.Feed}
		if json.Unmarshal([]byte(r.Options), &c.Options) == nil && json.Unmarshal([]byte(r.Made), &c.Made) == nil {
			all = append(all, c)
		}
	}
	return all, nil
}

// columnsInComment matches the comment on the view in which earlier programs of version 5 kept Options.Columns.
var columnsInComment = regexp.MustCompile(`(?s)^auditstream 5 [0-9a-f]{32} (\{.*\}) [0-9a-f]{32}$`)

// earlierColumns returns Options.Columns of the last install; ok is false when they are not known.
func (i *installation) earlierColumns() (columns map[string]string, ok bool) {
	if i.chosen != nil {
		return i.chosen.Options.Columns, true
	}
	match := columnsInComment.FindStringSubmatch(i.Comment)
	if match == nil || json.Unmarshal([]byte(match[1]), &columns) != nil {
		return nil, false
	}
	return columns, true
}

// keepColumns adds to given the columns of the last install that are not given now, also by their new names if they were renamed. kept lists
// what it has added, as it would be written for --column.
func (i *installation) keepColumns(given map[string]string, t *table) (all map[string]string, kept []string) {
	before, _ := i.earlierColumns()
	all = maps.Clone(before)
	if all == nil {
		all = make(map[string]string)
	}
	if i.chosen != nil && t.named(i.Made) {
		for view, was := range i.chosen.Made.Sources {
			now := i.Made.Sources[view]
			if given, ok := before[optionOf(view)]; ok && given != was {
				continue // a source that is more than a column is not followed; an error says what is missing
			}
			if t.column(was) == nil && t.column(now) != nil {
				all[optionOf(view)] = now
			}
		}
	}
	for name, value := range all {
		if _, again := given[name]; !again {
			kept = append(kept, name+"="+value)
		}
	}
	maps.Copy(all, given)
	slices.Sort(kept)
	return all, kept
}

// keepOptions adds the other options of the last install that are not given now. Those that read other tables are kept only when nobody else
// can have written them.
func (i *installation) keepOptions(o Options) (Options, error) {
	if i.chosen == nil {
		return o, nil
	}
	if owner := i.Made.Objects[choicesTable]; !i.choicesAreTrusted() && (o.Lookups == nil && i.chosen.Options.Lookups != nil || o.Rings == nil && i.chosen.Options.Rings != nil) {
		return o, fmt.Errorf("--lookup and --ring of the last install are kept in auditstream.choices, which belongs to %s: give them again", owner.Owner)
	}
	c := i.chosen.Options
	keep(&o.Words, c.Words)
	keep(&o.Ends, c.Ends)
	keep(&o.Fields, c.Fields)
	keep(&o.Lookups, c.Lookups)
	keep(&o.Rings, c.Rings)
	if c.Report == "report" || c.Report == "report_"+string(i.naming) { // otherwise somebody else has written it
		o.report = c.Report
	}
	if o.Hide == "" && c.Hide != "" {
		o.hideKept = string(i.naming)
	}
	o.Hide, o.Deleted, o.Public = cmp.Or(o.Hide, c.Hide), cmp.Or(o.Deleted, c.Deleted), o.Public || c.Public
	return o, nil
}

func keep[T any](given *[]T, chosen []T) {
	if *given == nil {
		*given = chosen
	}
}

// choicesAreTrusted reports whether only a superuser or the current role can have written the choices.
func (i *installation) choicesAreTrusted() bool {
	owner := i.Made.Objects[choicesTable]
	return owner.Super || owner.Owner == i.Made.Installer
}

// optionOf returns the name of a view's column in Options.Columns.
func optionOf(view string) string {
	if view == "audit_id" {
		return "id"
	}
	return view
}

func (t *table) named(m madeObjects) bool { return t.Schema == m.Schema && t.Name == m.Name }

// checkColumnChange refuses to show other columns than an earlier install whose options are not known, unless columns are given.
func (i *installation) checkColumnChange(given map[string]string, m *mapping) error {
	_, known := i.earlierColumns()
	if c := i.chosen; c != nil && c.Options.Asked == "" { // psql's install records no columns; if the view was changed since, it may hide some
		known = i.Made.Objects[i.viewObject()].Tree == c.Made.Objects[i.viewObject()].Tree
	}
	if m.own != nil || !i.madeByInstall() || known || len(given) > 0 || len(i.Reads) != 1 {
		return nil
	}
	for _, name := range viewColumns {
		if !slices.ContainsFunc(i.Columns, func(c viewColumn) bool { return c.Name == name }) {
			return nil // no install made this view: it is being repaired
		}
	}
	var want []string
	for _, source := range m.sources() {
		want = append(want, source.Name)
	}
	var changes []string
	if more := missingFrom(want, i.Reads[0].Columns); len(more) > 0 {
		changes = append(changes, "show "+strings.Join(more, ", "))
	}
	if less := missingFrom(i.Reads[0].Columns, want); len(less) > 0 {
		changes = append(changes, "no longer show "+strings.Join(less, ", "))
	}
	if len(changes) == 0 {
		return nil
	}
	return fmt.Errorf("auditstream was installed with other columns: this would %s; give the --column options of that install, or"+
		" --column OURS=THEIRS for what is to change (OURS= leaves it out)", strings.Join(changes, ", and "))
}

// missingFrom returns the names of all that are not in some, each once.
func missingFrom(all, some []string) (rest []string) {
	for _, name := range all {
		if !slices.Contains(some, name) && !slices.Contains(rest, name) {
			rest = append(rest, name)
		}
	}
	return rest
}

// recordChoices returns the options as JSON for auditstream.choices, with the table's own spelling of each column.
func recordChoices(o Options, roles []string, m *mapping, asked string) string {
	c := chosenOptions{Asked: asked, Columns: map[string]string{"id": m.key.Name}, Roles: append([]string{}, roles...), Triggers: !o.NoTriggers, Always: o.NotifyAlways,
		Key: m.keyType(), Ends: o.Ends, Deleted: o.Deleted, Public: o.Public, HasFields: len(m.fields) > 0, Words: o.Words, Fields: o.Fields, Lookups: o.Lookups, Rings: o.Rings, Hide: o.Hide, View: o.View, Report: o.report}
	c.Groups = slices.ContainsFunc(m.columns, func(column column) bool { return column.name == "group_id" })
	for _, column := range m.columns {
		c.Columns[column.name] = ""
		if column.source != nil {
			c.Columns[column.name] = o.Columns[column.name]
			if column.source.isColumn() && m.own == nil {
				c.Columns[column.name] = column.source.column.Name
			}
		}
	}
	maps.DeleteFunc(c.Columns, func(name, _ string) bool { _, ok := o.Columns[name]; return !ok })
	text, _ := json.Marshal(c) // Marshal never fails for strings
	return string(text)
}
