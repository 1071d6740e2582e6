package sql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// viewName is the name of the operator's own query in messages.
const viewName = "the view of --view"

// loadView describes the operator's own query, which the view then reads instead of the table. Its columns have our names. Install never runs
// the query: the views and functions that it names may belong to others by now, and the current role may be a superuser. The query may
// raise an error for a row; package store then isolates that row.
func loadView(ctx context.Context, conn *pgx.Conn, query string) (*table, error) {
	fail := func(err error) error {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "42P01" { // undefined_table
			return fmt.Errorf("%s: %s: give each table with its schema, like public.jobs", viewName, refused.Message)
		}
		return fmt.Errorf("%s: %w", viewName, err)
	}
	described, err := conn.PgConn().Prepare(ctx, "", "select * from "+asTable(query)+" a", nil)
	if err != nil {
		return nil, fail(err)
	}
	if len(described.ParamOIDs) > 0 {
		return nil, fmt.Errorf("%s has a parameter, $1: write its value instead", viewName)
	}
	var types []uint32
	v := &table{Display: viewName, Kind: "v"}
	for _, f := range described.Fields {
		if v.column(f.Name) != nil {
			return nil, fmt.Errorf("%s has two columns %s: name each with as", viewName, f.Name)
		}
		types = append(types, f.DataTypeOID)
		v.Columns = append(v.Columns, attribute{Name: f.Name})
	}
	found, err := collect(ctx, conn, "types", pgx.RowToStructByNameLax[attribute], `
		with recursive types as (
			select o.n, o.type, 0 as depth from pg_catalog.unnest($1::oid[]) with ordinality o(type, n)
			union all
			select types.n, t.typbasetype, types.depth + 1 from types join pg_catalog.pg_type t on t.oid = types.type where t.typtype = 'd'
		)
		select distinct on (types.n) '' as name, pg_catalog.format_type(t.oid, -1) as type, types.depth > 0 as domain, t.typname as base, pg_catalog.format_type(t.oid, -1) as base_sql,
			t.typtype::text as base_kind, t.typcategory::text as category, t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace as built_in, case when t.typcollation <> 0 then 100 else 0 end as collation
		from types join pg_catalog.pg_type t on t.oid = types.type order by types.n, types.depth desc`, types)
	if err != nil {
		return nil, err
	}
	for i, a := range found {
		a.Name = v.Columns[i].Name
		v.Columns[i] = a
	}
	var missing []string
	for _, name := range []string{"id", "status", "progress"} {
		if v.column(name) == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s has no column %s: it selects id, status and progress, and what else it has of %s (it has %s)",
			viewName, strings.Join(missing, " and no column "), strings.Join(viewColumns, ", "), v.names())
	}
	return v, nil
}

// asTable returns a query in parentheses, as SQL wants it in place of a table. The line breaks are there because a comment may end the query.
func asTable(query string) string { return "(\n" + query + "\n)" }

// withView checks and completes the options of an install with the operator's own query, given now or in the last install.
func (i *installation) withView(given Options, o Options) (Options, error) {
	if c := i.chosen; c != nil && o.View == "" && c.Options.View != "" {
		if !i.choicesAreTrusted() {
			return o, fmt.Errorf("%s is kept in auditstream.choices, which belongs to %s: give it again", viewName, i.Made.Objects[choicesTable].Owner)
		}
		o.View = c.Options.View
	}
	if o.View == "" {
		return o, nil
	}
	var refused refusals
	for _, name := range slices.Sorted(maps.Keys(given.Columns)) {
		if name != "id" {
			refused.add(usagef("--column %s=%s: %s names its columns itself, with as; change it and give it again", name, given.Columns[name], viewName))
		}
	}
	if len(refused) > 0 {
		return o, refused.err()
	}
	if given.Create {
		return o, usagef("--create and --view do not go together: make the table first")
	}
	id, ok := o.Columns["id"]
	if o.Columns = nil; ok {
		o.Columns = map[string]string{"id": id}
	}
	return o, nil
}

// useOwnView makes the mapping one of the operator's query v: the triggers use the table's key, and viewers see the id of v.
func (m *mapping) useOwnView(t *table, o Options, v *table) error {
	key, err := findKey(t, o.Columns["id"])
	if err != nil {
		return err
	}
	if kindOf(key) != kindOf(m.shownKey) {
		return fmt.Errorf("%s shows an id that is %s, and %s of %s is %s: select the column that identifies a row, or name it with --column id=NAME", viewName, m.shownKey.Type, key.Name, t.Display, key.Type)
	}
	m.key, m.own = *key, v
	for _, name := range []string{"user_id", "user_email", "group_id"} {
		if t.column(name) != nil {
			m.ownOwners = append(m.ownOwners, ident(name))
		}
	}
	return nil
}

// unusedColumns returns the columns of the operator's query that are not shown.
func (m *mapping) unusedColumns() []string {
	if m.own == nil {
		return nil
	}
	var rest []string
	for _, a := range m.own.Columns {
		used := slices.ContainsFunc(m.sources(), func(s *attribute) bool { return s.Name == a.Name })
		if !used {
			rest = append(rest, a.Name)
		}
	}
	return rest
}
