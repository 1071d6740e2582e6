package sql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A table describes a relation of the application, from the catalog.
type table struct {
	OID     uint32 // 0: Install will create it
	Schema  string
	Name    string
	Display string // for messages: quoted only where SQL requires it
	Kind    string // pg_class.relkind
	Owner   string
	Rows    float64 // an estimate, from the last ANALYZE

	Temporary, System, Inherited, RowSecurity bool

	Columns []attribute
}

func (t *table) quoted() string { return ident(t.Schema, t.Name) }

func (t *table) column(name string) *attribute {
	i := slices.IndexFunc(t.Columns, func(a attribute) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Columns[i]
}

// An attribute is a column of a table. Base is its type; of a domain, the type below all domains.
type attribute struct {
	Name      string
	Type      string // as declared, for people
	Domain    bool
	Base      string // pg_type.typname
	BaseSQL   string // Base as written in a cast
	BaseKind  string // pg_type.typtype
	Category  string // pg_type.typcategory
	BuiltIn   bool   // the base type is PostgreSQL's own
	Collation uint32

	PrimaryKey, Indexed, Unique bool // it is the primary key; the first column of an index; the only column of a unique index
	NotNull                     bool // in the table, by a domain, or in each of its partitions

	IndexedOf, UniqueOf []string // columns by which --hide leaves just the rows of a partial index that makes it Indexed, or Unique
}

// findTable looks up a name as SQL would, with the connection's search_path, and then exactly as spelled, because shells remove the quotes
// around a name in mixed case. When there is no such relation, oid is 0, and schema and relation are the parts of the name, or empty
// when it is not a valid name.
func findTable(ctx context.Context, conn *pgx.Conn, name string) (oid uint32, schema, relation string, err error) {
	parts := parseName(name)
	oid, err = firstTable(ctx, conn, parts, strings.SplitN(name, ".", 2), []string{name})
	if err != nil {
		return 0, "", "", fmt.Errorf("look up table %s: %w", name, err)
	}
	switch {
	case oid != 0:
		return oid, "", "", nil
	case len(parts) == 1:
		schemas, err := texts(ctx, conn, "the current schema", `select coalesce(pg_catalog.current_schema(), '')`)
		return 0, strings.Join(schemas, ""), parts[0], err
	case len(parts) == 2:
		return 0, parts[0], parts[1], nil
	}
	return 0, "", "", nil
}

// firstTable returns the relation that has the first of these names, each of which is a name, or a schema and a name; 0 when there is none.
func firstTable(ctx context.Context, conn *pgx.Conn, spellings ...[]string) (oid uint32, err error) {
	for _, spelling := range spellings {
		if len(spelling) == 0 || len(spelling) > 2 {
			continue
		}
		// With the connection's search_path, operators need their schema: an operator of somebody else could be found first.
		err = conn.QueryRow(ctx, `
			select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
			where c.relname operator(pg_catalog.=) $2::pg_catalog.name and case when $1::pg_catalog.text operator(pg_catalog.=) ''::pg_catalog.text
				then pg_catalog.pg_table_is_visible(c.oid) else n.nspname operator(pg_catalog.=) $1::pg_catalog.text end`,
			strings.Join(spelling[:len(spelling)-1], ""), spelling[len(spelling)-1]).Scan(&oid)
		if !errors.Is(err, pgx.ErrNoRows) {
			return oid, err
		}
	}
	return 0, nil
}

// part matches one part of a name, as SQL allows it: in quotes, or plain and then folded to lower case.
var part = regexp.MustCompile(`^\s*(?:"((?:[^"]|"")+)"|([\pL_][\pL\pN_$]*))\s*(\.|$)`)

// parseName splits a name as SQL would. It returns nil when the name is invalid. (The server's parse_ident would abort the transaction.)
func parseName(name string) []string {
	var parts []string
	for {
		match := part.FindStringSubmatch(name)
		if match == nil {
			return nil
		}
		parts = append(parts, strings.ReplaceAll(match[1], `""`, `"`)+strings.ToLower(match[2]))
		name = name[len(match[0]):]
		if match[3] == "" {
			return parts
		}
	}
}

// splitName splits a name at the dots outside of quotes, and leaves the quotes of each part. It returns nil when a part is empty, or when
// quotes are not around a whole part.
func splitName(name string) []string {
	var parts []string
	for {
		match := spelledPart.FindStringSubmatch(name)
		if match == nil {
			return nil
		}
		parts = append(parts, match[1])
		name = name[len(match[0]):]
		if match[2] == "" {
			return parts
		}
	}
}

var spelledPart = regexp.MustCompile(`^("(?:[^"]|"")+"|[^".]+)(\.|$)`)

// notFound returns the error that there is no such table, with tables that have a similar name, and those that have our columns.
func notFound(ctx context.Context, conn *pgx.Conn, name string) error {
	type relation struct {
		Name, Display, Database string
		Ours                    bool
	}
	tables, err := collect(ctx, conn, "tables like "+name, pgx.RowToStructByPos[relation], `
		select coalesce(x.relname, ''), coalesce(x.display, ''), pg_catalog.current_database()::text, coalesce(x.ours, false) from (values (1)) one left join (
			select c.relname::text, pg_catalog.format('%I.%I', n.nspname, c.relname) as display,
			       2 = (select pg_catalog.count(*) from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname in ('status', 'progress') and not a.attisdropped) as ours
			from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
			where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema', 'auditstream')
			order by 2 limit 10000) x on true order by 2`)
	if err != nil {
		return err
	}
	var names, ours []string
	for _, t := range tables {
		if names = append(names, t.Name); t.Ours && len(ours) < 5 {
			ours = append(ours, t.Display)
		}
	}
	message := fmt.Sprintf("there is no table %s in the database %s: name yours with --table, or let --create make it", name, tables[0].Database)
	var alike []string
	for _, like := range similar(name[strings.LastIndex(name, ".")+1:], names) {
		for _, t := range tables {
			if t.Name == like && len(alike) < maxLikely {
				alike = append(alike, t.Display)
			}
		}
	}
	if len(alike) > 0 {
		message += "; perhaps " + strings.Join(alike, " or ")
	}
	if len(ours) > 0 {
		message += "; these have columns status and progress: " + strings.Join(ours, ", ")
	}
	return errors.New(message)
}

// loadTable reads a table's description, and refuses what is not a table of the application. The search_path must be empty, so that the
// server writes types with their schema.
func loadTable(ctx context.Context, conn *pgx.Conn, oid uint32) (*table, error) {
	found, err := collect(ctx, conn, "table", pgx.RowToAddrOfStructByName[table], tableSQL, oid)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("the table was dropped a moment ago: make it again, or name another one with --table")
	}
	t := found[0]
	kinds := map[string]string{"v": "a view: name the table that it reads", "m": "a materialized view: name the table that it reads",
		"f": "a foreign table: its changes are made elsewhere and fire no triggers", "S": "a sequence, not a table",
		"i": "an index, not a table", "I": "an index, not a table", "c": "a type, not a table", "t": "a TOAST table"}
	what := kinds[t.Kind]
	switch {
	case t.System:
		what = "part of the system: name a table of your application"
	case t.Temporary:
		what = "a temporary table: nobody else can see its rows"
	}
	if what != "" {
		return nil, fmt.Errorf("%s cannot be adopted: it is %s", t.Display, what)
	}
	return t, nil
}

const tableSQL = `
	with recursive types as (
		select a.attnum, a.atttypid as type, 0 as depth from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
		union all
		select types.attnum, t.typbasetype, types.depth + 1 from types join pg_catalog.pg_type t on t.oid = types.type where t.typtype = 'd'
	), indexes as (
		select i.indkey[0] as attnum, i.indisprimary, i.indisunique, i.indnkeyatts
		from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_am am on am.oid = c.relam
		where i.indrelid = $1 and i.indisvalid and i.indpred is null and am.amname in ('btree', 'hash')
	), leaves as materialized (
		select l.relid from pg_catalog.pg_partition_tree($1::pg_catalog.oid) l where l.isleaf and l.relid <> $1
	), partial as (
		select i.indkey[0] as attnum, h.attname, i.indisunique and i.indnkeyatts = 1 as is_unique, p.predicate <> pg_catalog.format('(%I IS NOT TRUE)', h.attname)
			and h.atttypid = 'pg_catalog.bool'::pg_catalog.regtype as narrower
		from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_am am on am.oid = c.relam and am.amname in ('btree', 'hash')
		cross join pg_catalog.pg_get_expr(i.indpred, i.indrelid) p(predicate)
		join pg_catalog.pg_attribute h on h.attrelid = $1 and h.attnum > 0 and not h.attisdropped
			and p.predicate = any (case when h.atttypid <> 'pg_catalog.bool'::pg_catalog.regtype then array[pg_catalog.format('(%I IS NULL)', h.attname)]
				when h.attnotnull then array[pg_catalog.format('(%I IS NOT TRUE)', h.attname), pg_catalog.format('(NOT %I)', h.attname),
					pg_catalog.format('(%I = false)', h.attname), pg_catalog.format('(%I IS FALSE)', h.attname)]
				else array[pg_catalog.format('(%I IS NOT TRUE)', h.attname)] end)
		where i.indrelid = $1 and i.indisvalid
	), columns as (
		select distinct on (a.attnum) a.attnum, a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, types.depth > 0 as domain,
		       t.typname as base, pg_catalog.format_type(t.oid, -1) as "baseSQL", t.typtype as "baseKind", t.typcategory as category,
		       t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace as "builtIn", a.attcollation::int8 as collation,
		       exists (select from indexes i where i.attnum = a.attnum and i.indisprimary and i.indnkeyatts = 1) as "primaryKey",
		       exists (select from indexes i where i.attnum = a.attnum) as indexed,
		       exists (select from indexes i where i.attnum = a.attnum and i.indisunique and i.indnkeyatts = 1) as unique,
		       a.attnotnull or exists (select from types d join pg_catalog.pg_type dt on dt.oid = d.type where d.attnum = a.attnum and dt.typnotnull)
		           or exists (select from leaves) and not exists (select from leaves l join pg_catalog.pg_attribute p on p.attrelid = l.relid
		               where p.attname = a.attname and not p.attnotnull) as "notNull",
		       (select pg_catalog.json_agg(p.attname) from partial p where p.attnum = a.attnum and not p.narrower) as "indexedOf",
		       (select pg_catalog.json_agg(p.attname) from partial p where p.attnum = a.attnum and p.is_unique) as "uniqueOf"
		from types join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attnum = types.attnum join pg_catalog.pg_type t on t.oid = types.type
		order by a.attnum, types.depth desc
	)
	select c.oid, n.nspname as schema, c.relname as name, pg_catalog.format('%I.%I', n.nspname, c.relname) as display,
	       c.relkind::text as kind, pg_catalog.pg_get_userbyid(c.relowner) as owner, c.reltuples::float8 as rows, c.relpersistence = 't' as temporary,
	       n.nspname in ('pg_catalog', 'information_schema', 'pg_toast', 'auditstream') as system,
	       c.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid) as inherited,
	       pg_catalog.row_security_active(c.oid) as row_security,
	       (select coalesce(pg_catalog.json_agg(x order by x.attnum), '[]') from columns x) as columns
	from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where c.oid = $1`

// createdTable describes the table of audits.sql or feed.sql before it exists.
func createdTable(schema, name, feed string) *table {
	t := &table{Schema: schema, Name: name, Display: schema + "." + name, Kind: "r"}
	columns := []string{"id int8", "user_id text", "user_email text", "status text", "progress int4", "message text", "geo_score float8", "total_pages int4", "error text"}
	if feed != defaultFeed {
		columns = []string{"id text", "user_id text", "user_email text", "status text", "progress int4", "message text", "error text"}
	}
	for _, column := range columns {
		column, base, _ := strings.Cut(column, " ")
		a := attribute{Name: column, Type: base, Base: base, BaseSQL: base, BaseKind: "b", Category: "N", BuiltIn: true}
		a.PrimaryKey, a.Indexed, a.Unique = column == "id", column == "id", column == "id"
		a.NotNull = slices.Contains([]string{"id", "status", "progress"}, column)
		if base == "text" {
			a.Category, a.Collation = "S", defaultCollation
		}
		t.Columns = append(t.Columns, a)
	}
	return t
}

// columnByName returns the column for a name from the command line: first exactly as spelled, then as SQL folds it.
func (t *table) columnByName(name string) *attribute {
	if a := t.column(name); a != nil {
		return a
	}
	if len(name) > 2 && strings.HasPrefix(name, `"`) && strings.HasSuffix(name, `"`) {
		return t.column(strings.ReplaceAll(name[1:len(name)-1], `""`, `"`))
	}
	return t.column(strings.ToLower(name))
}
