package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// installation is what the catalog says about an earlier install of one feed.
type installation struct {
	naming `db:"-"`

	Schema        bool
	SchemaComment string
	Kind          string // pg_class.relkind of auditstream.progress; "": there is no such relation
	Comment       string
	Old           bool        // something is left of what versions up to 4 made besides the view
	Watch         bool        // the table watch of versions 2 to 4 is there
	Prepare       bool        // the function prepare_watch of versions 3 and 4 is there
	Feeds         bool        // the view feeds of version 5 is there, with the right columns
	Buckets       int         // the number in that view; 0: none, or one that install does not choose
	Made          madeObjects // the current objects of install, and the table
	Choices       string      // the table choices: "" missing, "readable", or "closed" to the current role
	Foreign       string      // the statement that drops an object of another kind that has a name of install's; "": none
	Moved         string      // the new name of the schema auditstream, if it was renamed

	chosen *choices   // this feed's; nil: not known
	all    []*choices // those of all feeds

	Columns  []viewColumn
	Reads    []relation // the tables that the view reads
	Triggers []trigger  // all that call our function, with any name and on any table
}

type viewColumn struct {
	Name, Type string
	Collation  uint32
}

type relation struct {
	OID                   uint32
	Schema, Name, Display string
	Columns               []string // those that the view reads
}

func (r relation) table() *table {
	return &table{OID: r.OID, Schema: r.Schema, Name: r.Name, Display: r.Display}
}

type trigger struct {
	relation // its table
	Trigger  string
	Enabled  string // pg_trigger.tgenabled
	Copy     bool   // it is a partition's copy of its partitioned table's trigger

	Constraint bool // it is a constraint trigger, which "create or replace trigger" cannot replace
}

// installers selects the roles whose functions outside our schema count as those of an earlier install. With those of any role, anybody could
// stop an install with a function of that name.
const installers = `select u.oid from pg_catalog.pg_roles u where u.rolsuper or u.rolname = current_user`

// installedSQL reads an installation of the feed audits; naming.in changes it for another feed.
const installedSQL = `
	select n.oid is not null as schema, coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '') as schema_comment,
	       coalesce(c.relkind::text, '') as kind, coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') as comment,
	       w.oid is not null or exists (select from pg_catalog.pg_proc p where p.pronamespace = n.oid and p.proname in ('notify_change', 'unwatch', 'prepare_watch'))
	           or exists (select from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid where p.pronamespace = n.oid and g.tgname = 'auditstream_key') as old,
	       w.oid is not null as watch, exists (select from pg_catalog.pg_proc p where p.pronamespace = n.oid and p.proname = 'prepare_watch') as prepare,
	       f.oid is not null as feeds, coalesce((select b from (select pg_catalog.substring(pg_catalog.pg_get_viewdef(f.oid), '([0-9]{1,4}) AS buckets')::int as b) x
	           where b between 64 and 4096 and b & (b - 1) = 0), 0) as buckets,
	       (:state) as made,
	       coalesce((select pg_catalog.format('drop %s auditstream.%I', case x.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
	               when 'S' then 'sequence' when 'c' then 'type' else 'table' end, x.relname)
	           from pg_catalog.pg_class x where x.relnamespace = n.oid and (x.relname in ('progress', 'feeds') and x.relkind <> 'v' or x.relname = 'choices' and k.oid is null) limit 1), '') as foreign,
	       case when k.oid is null then ''
	           when pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(k.oid, 'select') then 'readable' else 'closed' end as choices,
	       coalesce((select pg_catalog.min(p.pronamespace::pg_catalog.regnamespace::text) from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
	           where n.oid is null and t.tgname = 'auditstream_insert' and p.proname = 'changed' and p.proowner in (` + installers + `)
	               and exists (select from pg_catalog.pg_class v where v.relnamespace = p.pronamespace and v.relname = 'progress' and v.relkind = 'v')), '') as moved,
	       (select coalesce(pg_catalog.json_agg(x), '[]') from (
	           select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.attcollation::int8 as collation
	           from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) x) as columns,
	       (select coalesce(pg_catalog.json_agg(x), '[]') from (
	           select r.oid::int8, rn.nspname as schema, r.relname as name, pg_catalog.format('%I.%I', rn.nspname, r.relname) as display,
	                  pg_catalog.array_agg(distinct a.attname) filter (where a.attname is not null) as columns
	           from pg_catalog.pg_rewrite w join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
	               join pg_catalog.pg_class r on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and r.oid = d.refobjid and r.oid <> c.oid
	               join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
	               left join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum = d.refobjsubid and d.refobjsubid > 0
	           where w.ev_class = c.oid group by r.oid, rn.nspname, r.relname order by display) x) as reads,
	       (select coalesce(pg_catalog.json_agg(x), '[]') from (
	           select t.tgname as trigger, r.oid::int8, rn.nspname as schema, r.relname as name, pg_catalog.format('%I.%I', rn.nspname, r.relname) as display,
	                  t.tgenabled as enabled, t.tgparentid <> 0 as copy, t.tgconstraint <> 0 as constraint
	           from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
	               join pg_catalog.pg_class r on r.oid = t.tgrelid join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
	           where r.relpersistence <> 't' and t.tgname <> all ($1::text[]) and (p.pronamespace = n.oid or p.proname in ('changed', 'notify_change') and p.proowner in (` + installers + `) and t.tgname like 'auditstream\_%'
	               and pg_catalog.substr(t.tgname, 13) in ('insert', 'update', 'delete', 'owner', 'truncate', 'key')) order by copy, display, t.tgname) x) as triggers
	from (values (1)) one
		left join pg_catalog.pg_namespace n on n.nspname = 'auditstream'
		left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = 'progress'
		left join pg_catalog.pg_class k on k.relnamespace = n.oid and k.relname = 'choices' and k.relkind = 'r'
			and 3 = (select pg_catalog.count(*) from pg_catalog.pg_attribute a where a.attrelid = k.oid and a.attnum > 0 and not a.attisdropped
				and (a.attname, a.atttypid) in (('feed', 'text'::pg_catalog.regtype), ('options', 'jsonb'::pg_catalog.regtype), ('made', 'jsonb'::pg_catalog.regtype)))
		left join pg_catalog.pg_class w on w.relnamespace = n.oid and w.relname = 'watch' and w.relkind = 'r'
		left join pg_catalog.pg_class f on f.relnamespace = n.oid and f.relname = 'feeds' and f.relkind = 'v' and '{"feed text","class integer","buckets integer"}' = array(
			select a.attname || ' ' || pg_catalog.format_type(a.atttypid, null) from pg_catalog.pg_attribute a where a.attrelid = f.oid and a.attnum > 0 order by a.attnum)`

// loadInstalled reads the installation of a feed. The search_path must be empty.
func loadInstalled(ctx context.Context, conn *pgx.Conn, feed string) (*installation, error) {
	all, err := loadChoices(ctx, conn)
	if err != nil {
		return nil, err
	}
	n := naming(feed)
	var chosen *choices
	for _, c := range all {
		if c.Feed == feed {
			chosen = c
		}
	}
	others := append([]string{}, othersTriggers(all, n)...) // not null
	vars := n.vars(others)
	if vars["report"] = ""; chosen != nil {
		vars["report"] = chosen.Options.Report
	}
	query := strings.Replace(n.in(installedSQL), ":state", substitute(stateSQL, vars), 1)
	found, err := collect(ctx, conn, "schema auditstream", pgx.RowToAddrOfStructByName[installation], query, others)
	if err != nil {
		return nil, err
	}
	i := found[0]
	i.naming, i.all, i.chosen = n, all, chosen
	return i, nil
}

// madeByInstall reports whether install.sql made the view, and not somebody by hand.
func (i *installation) madeByInstall() bool { return i.version() > 0 }

// version returns the installed version; 0 when there is none, or the view is handwritten.
func (i *installation) version() int {
	if i.Kind != "v" {
		return 0
	}
	v := versionOf(i.Comment, i.Watch, i.Prepare)
	if v == 0 && i.chosen != nil { // somebody else's comment, or a dump without any
		was, now := i.chosen.Made.Objects[i.viewObject()], i.Made.Objects[i.viewObject()]
		if was.Text == now.Text || was.Tree == now.Tree {
			return SchemaVersion
		}
	}
	return v
}

// checkSchemaName refuses an installation whose schema was renamed.
func (i *installation) checkSchemaName() error {
	if i.Moved == "" {
		return nil
	}
	return fmt.Errorf("the triggers of auditstream are there, and its schema is called %[1]s now: give it back its name, with: alter schema %[1]s rename to auditstream", i.Moved)
}

// checkConflict refuses to replace what belongs to another table or was made by somebody else.
func (i *installation) checkConflict(t *table) error {
	if i.Kind != "" && !i.madeByInstall() {
		return fmt.Errorf("auditstream.%s exists and was not made by install, so it is left alone: drop it, or keep it and do not install", i.view())
	}
	if i.Foreign != "" {
		return fmt.Errorf("something else has the name of what install makes: %s; and install again, with all the --column options", i.Foreign)
	}
	others := slices.Clone(i.Reads)
	for _, trigger := range i.Triggers {
		if !trigger.Copy && !i.rings(trigger.Trigger) {
			others = append(others, trigger.relation)
		}
	}
	for _, other := range others {
		if other.OID != t.OID && !i.replacedBy(t) {
			return fmt.Errorf("the feed %s is installed on %s, not on %s: give the other table a feed of its own with --feed NAME, or take this one away first with auditstream uninstall --feed %[1]s",
				i.naming, other.Display, t.Display)
		}
	}
	return nil
}

// replaceable reports whether "create or replace view" can replace the current view.
func (i *installation) replaceable(m *mapping) bool {
	want := []viewColumn{{Name: i.id(), Type: map[string]string{"": "bigint", "uuid": "uuid", "text": "text"}[m.keyType()], Collation: m.keyCollation()}}
	for _, c := range m.columns {
		want = append(want, viewColumn{Name: c.name, Type: viewTypes[c.name], Collation: c.collation()})
	}
	return slices.Equal(want, i.Columns)
}
