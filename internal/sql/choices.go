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

// choices are a row of auditstream.choices: what was chosen, and what came of it. They stay until uninstall. They are data of whoever owns
// the schema: compared with the catalog and looked up there, never run.
type choices struct {
	Feed    string
	Options chosen
	Made    made
}

// chosen is what the options of an install say.
type chosen struct {
	Asked    string            `json:"asked"`   // the sum of the script; "" where psql ran it
	Columns  map[string]string `json:"columns"` // of Options.Columns, as the table spells them
	Roles    []string          `json:"roles"`   // all that serve was ever to run as
	Triggers bool              `json:"triggers"`
	Always   bool              `json:"always"`

	// What serve wants to know.
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
	Report  string   `json:"report,omitempty"` // the function that writes to the table
}

// made is what install.sql's state query says.
type made struct {
	Installer       string            `json:"installer"`
	Server          int               `json:"server"` // PostgreSQL's major version: each writes a definition in its own way
	Schema          string            `json:"schema"` // of the only table that the view reads, like Name and Owner
	Name            string            `json:"name"`
	Owner           string            `json:"owner"`
	Sources         map[string]string `json:"sources"` // the view's columns, and the table's that they are made of
	Indexed, Unique bool              // the key
	Objects         map[string]object `json:"objects"`
}

type object struct {
	Owner, Text, Tree, Off string
	Super                  bool // the owner is a superuser
}

// readableSQL says whether the current role may read the choices.
const readableSQL = `select 'yes' from pg_catalog.pg_class k join pg_catalog.pg_namespace n on n.oid = k.relnamespace and n.nspname = 'auditstream'
	where k.relname = 'choices' and k.relkind = 'r' and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(k.oid, 'select')
		and 3 = (select pg_catalog.count(*) from pg_catalog.pg_attribute a where a.attrelid = k.oid and a.attnum > 0 and not a.attisdropped
			and (a.attname, a.atttypid) in (('feed', 'text'::pg_catalog.regtype), ('options', 'jsonb'::pg_catalog.regtype), ('made', 'jsonb'::pg_catalog.regtype)))`

// loadChoices reads the rows without running anything of whoever owns the table: no view's functions and no casts, for TABLESAMPLE takes tables
// alone and format() the types' own output. None: nothing is known.
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

// Earlier programs of version 5 kept Options.Columns in the comment on the view.
var remembered = regexp.MustCompile(`(?s)^auditstream 5 [0-9a-f]{32} (\{.*\}) [0-9a-f]{32}$`)

// rememberedColumns reads them; ok is false where nothing is known.
func (i *installed) rememberedColumns() (columns map[string]string, ok bool) {
	if i.chosen != nil {
		return i.chosen.Options.Columns, true
	}
	match := remembered.FindStringSubmatch(i.Comment)
	if match == nil || json.Unmarshal([]byte(match[1]), &columns) != nil {
		return nil, false
	}
	return columns, true
}

// keepColumns adds to given what an earlier install was given and this one was not, and what the columns that were found then are called now;
// kept says what that is, as it would be written for --column.
func (i *installed) keepColumns(given map[string]string, t *table) (all map[string]string, kept []string) {
	before, _ := i.rememberedColumns()
	all = maps.Clone(before)
	if all == nil {
		all = make(map[string]string)
	}
	if i.chosen != nil && t.named(i.Made) {
		for view, was := range i.chosen.Made.Sources {
			now := i.Made.Sources[view]
			if given, ok := before[optionOf(view)]; ok && given != was {
				continue // a part of the column, or a number made of it: what is missing is said
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

// keepOthers adds what an earlier install was given besides columns and this one was not. What reads other tables than the adopted one counts
// only where nobody else can have written it.
func (i *installed) keepOthers(o Options) (Options, error) {
	if i.chosen == nil {
		return o, nil
	}
	if owner := i.Made.Objects[choicesTable]; !i.safe() && (o.Lookups == nil && i.chosen.Options.Lookups != nil || o.Rings == nil && i.chosen.Options.Rings != nil) {
		return o, fmt.Errorf("--lookup and --ring of the install before are kept in auditstream.choices, which belongs to %s: give them again", owner.Owner)
	}
	c := i.chosen.Options
	if o.Words == nil {
		o.Words = c.Words
	}
	if o.Ends == nil {
		o.Ends = c.Ends
	}
	if o.Fields == nil {
		o.Fields = c.Fields
	}
	if o.Lookups == nil {
		o.Lookups = c.Lookups
	}
	if o.Rings == nil {
		o.Rings = c.Rings
	}
	if c.Report == "report" || c.Report == "report_"+string(i.naming) { // else somebody else has written it
		o.report = c.Report
	}
	o.Hide, o.Deleted, o.Public = cmp.Or(o.Hide, c.Hide), cmp.Or(o.Deleted, c.Deleted), o.Public || c.Public
	return o, nil
}

// safe says whether nobody but a superuser, and whoever installs, can have written the choices.
func (i *installed) safe() bool {
	owner := i.Made.Objects[choicesTable]
	return owner.Super || owner.Owner == i.Made.Installer
}

// optionOf is what Options.Columns calls a column of the view.
func optionOf(view string) string {
	if view == "audit_id" {
		return "id"
	}
	return view
}

func (t *table) named(m made) bool { return t.Schema == m.Schema && t.Name == m.Name }

// unlike refuses to show other columns than an earlier install of which nothing is known did, unless somebody says which.
func (i *installed) unlike(given map[string]string, m *mapping) error {
	_, known := i.rememberedColumns()
	if c := i.chosen; c != nil && c.Options.Asked == "" { // psql's install says nothing of columns: a view that was changed since may hide some
		known = i.Made.Objects[i.viewObject()].Tree == c.Made.Objects[i.viewObject()].Tree
	}
	if m.own != nil || !i.ours() || known || len(given) > 0 || len(i.Reads) != 1 {
		return nil
	}
	for _, name := range ours {
		if !slices.ContainsFunc(i.Columns, func(c viewColumn) bool { return c.Name == name }) {
			return nil // no install left it so: it is being repaired
		}
	}
	var want []string
	for _, source := range m.sources() {
		want = append(want, source.Name)
	}
	var changes []string
	if more := without(want, i.Reads[0].Columns); len(more) > 0 {
		changes = append(changes, "show "+strings.Join(more, ", "))
	}
	if less := without(i.Reads[0].Columns, want); len(less) > 0 {
		changes = append(changes, "no longer show "+strings.Join(less, ", "))
	}
	if len(changes) == 0 {
		return nil
	}
	return fmt.Errorf("auditstream was installed with other columns: this would %s; give the --column options of then, or"+
		" --column OURS=THEIRS for what is to change (OURS= leaves it out)", strings.Join(changes, ", and "))
}

// without are the names of all that are not among some, each once.
func without(all, some []string) (rest []string) {
	for _, name := range all {
		if !slices.Contains(some, name) && !slices.Contains(rest, name) {
			rest = append(rest, name)
		}
	}
	return rest
}

// choose writes down what of the table each given name means, and the rest of what was asked for.
func choose(o Options, roles []string, m *mapping, asked string) string {
	c := chosen{Asked: asked, Columns: map[string]string{"id": m.key.Name}, Roles: append([]string{}, roles...), Triggers: !o.NoTriggers, Always: o.NotifyAlways,
		Key: m.keyType(), Ends: o.Ends, Deleted: o.Deleted, Public: o.Public, HasFields: len(m.fields) > 0, Words: o.Words, Fields: o.Fields, Lookups: o.Lookups, Rings: o.Rings, Hide: o.Hide, View: o.View, Report: o.report}
	c.Groups = slices.ContainsFunc(m.columns, func(column column) bool { return column.name == "group_id" })
	for _, column := range m.columns {
		c.Columns[column.name] = ""
		if column.source != nil {
			c.Columns[column.name] = o.Columns[column.name]
			if column.source.plain() && m.own == nil {
				c.Columns[column.name] = column.source.column.Name
			}
		}
	}
	maps.DeleteFunc(c.Columns, func(name, _ string) bool { _, ok := o.Columns[name]; return !ok })
	text, _ := json.Marshal(c) // strings are always written
	return string(text)
}
