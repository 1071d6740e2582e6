package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// triggerNames are the triggers of install.sql.
var triggerNames = []string{"auditstream_insert", "auditstream_update", "auditstream_delete", ownerTrigger, "auditstream_truncate"}

// ownerTrigger is there where a column says whose a row is.
const ownerTrigger = "auditstream_owner"

// installed is what the catalog says about an earlier install. The search_path has to be empty.
type installed struct {
	Schema        bool
	SchemaComment string
	View          bool
	Kind          string // of what is called auditstream.progress
	ViewOwner     string
	Comment       string
	Function      bool // notify_change, of versions up to 4
	Watch         bool // the table of what was watched, of versions 2 to 4
	Prepare       bool // prepare_watch, of 3 and 4
	Feeds         bool // the view of version 5
	Buckets       int  // that it says; 0: none

	state    string // what the view, the function and the triggers are now
	columns  []viewColumn
	reads    []relation // the tables that the view reads
	triggers []trigger  // those that call our function
}

// ours tells install.sql's view from one that somebody wrote by hand.
func (i *installed) ours() bool { return i.version() > 0 }

// version is that of what install made; 0 when it made nothing, or somebody wrote the view by hand.
func (i *installed) version() int {
	if i.Kind != "v" {
		return 0
	}
	return versionOf(i.Comment, i.Watch, i.Prepare)
}

type viewColumn struct {
	Name, Type string
	Collation  uint32
}

type relation struct {
	OID          uint32
	Schema, Name string
	Display      string
	Columns      []string // that the view reads
}

type trigger struct {
	Name    string
	OID     uint32 // of its table
	Schema  string
	Table   string
	Display string // of its table
	Enabled string // pg_trigger.tgenabled
	Copy    bool   // of a partitioned table's trigger, on a partition
}

func loadInstalled(ctx context.Context, conn *pgx.Conn) (*installed, error) {
	rows, err := conn.Query(ctx, `
		select n.oid is not null as schema,
		       coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '') as schema_comment,
		       c.oid is not null as view, coalesce(c.relkind::text, '') as kind,
		       coalesce(pg_catalog.pg_get_userbyid(c.relowner), '') as view_owner,
		       coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') as comment,
		       exists (select from pg_catalog.pg_proc p
		               where p.pronamespace = n.oid and p.proname = 'notify_change' and p.pronargs = 0) as function,
		       exists (select from pg_catalog.pg_class w
		               where w.relnamespace = n.oid and w.relname = 'watch' and w.relkind = 'r') as watch,
		       exists (select from pg_catalog.pg_class f
		               where f.relnamespace = n.oid and f.relname = 'feeds' and f.relkind = 'v') as feeds,
		       coalesce((select pg_catalog.substring(pg_catalog.pg_get_viewdef(f.oid), '([0-9]{1,9}) AS buckets')::int from pg_catalog.pg_class f
		                 where f.relnamespace = n.oid and f.relname = 'feeds' and f.relkind = 'v'), 0) as buckets,
		       exists (select from pg_catalog.pg_proc p
		               where p.pronamespace = n.oid and p.proname = 'prepare_watch' and p.pronargs = 0) as prepare
		from (values (1)) one
			left join pg_catalog.pg_namespace n on n.nspname = 'auditstream'
			left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = 'progress'`)
	if err != nil {
		return nil, fmt.Errorf("read schema auditstream: %w", err)
	}
	i, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[installed])
	if err != nil {
		return nil, fmt.Errorf("read schema auditstream: %w", err)
	}
	if i.ours() {
		err = conn.QueryRow(ctx, stateSQL).Scan(&i.state)
		if err != nil {
			return nil, fmt.Errorf("read the state of auditstream.progress: %w", err)
		}
	}
	rows, err = conn.Query(ctx, `
		select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.attcollation as collation
		from pg_catalog.pg_attribute a
			join pg_catalog.pg_class c on c.oid = a.attrelid
			join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'auditstream' and c.relname = 'progress' and a.attnum > 0 and not a.attisdropped
		order by a.attnum`)
	if err != nil {
		return nil, fmt.Errorf("read columns of auditstream.progress: %w", err)
	}
	i.columns, err = pgx.CollectRows(rows, pgx.RowToStructByName[viewColumn])
	if err != nil {
		return nil, fmt.Errorf("read columns of auditstream.progress: %w", err)
	}
	rows, err = conn.Query(ctx, `
		select c.oid, rn.nspname as schema, c.relname as name, pg_catalog.format('%I.%I', rn.nspname, c.relname) as display,
		       pg_catalog.array_agg(distinct a.attname::text) filter (where a.attname is not null) as columns
		from pg_catalog.pg_class v
			join pg_catalog.pg_namespace n on n.oid = v.relnamespace
			join pg_catalog.pg_rewrite r on r.ev_class = v.oid
			join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
				and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> v.oid
			join pg_catalog.pg_class c on c.oid = d.refobjid
			join pg_catalog.pg_namespace rn on rn.oid = c.relnamespace
			left join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid and d.refobjsubid > 0
		where n.nspname = 'auditstream' and v.relname = 'progress'
		group by c.oid, rn.nspname, c.relname
		order by display`)
	if err != nil {
		return nil, fmt.Errorf("read what auditstream.progress reads: %w", err)
	}
	i.reads, err = pgx.CollectRows(rows, pgx.RowToStructByName[relation])
	if err != nil {
		return nil, fmt.Errorf("read what auditstream.progress reads: %w", err)
	}
	i.triggers, err = loadTriggers(ctx, conn)
	return i, err
}

// loadTriggers finds every trigger that calls a function of ours, whatever its name and table.
func loadTriggers(ctx context.Context, conn *pgx.Conn) ([]trigger, error) {
	rows, err := conn.Query(ctx, `
		select t.tgname as name, c.oid, cn.nspname as schema, c.relname as table,
		       pg_catalog.format('%I.%I', cn.nspname, c.relname) as display, t.tgenabled::text as enabled,
		       t.tgparentid <> 0 as copy
		from pg_catalog.pg_trigger t
			join pg_catalog.pg_proc p on p.oid = t.tgfoid
			join pg_catalog.pg_namespace n on n.oid = p.pronamespace
			join pg_catalog.pg_class c on c.oid = t.tgrelid
			join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
		where n.nspname = 'auditstream' and p.proname in ('changed', 'notify_change')
		order by copy, display, t.tgname`)
	if err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	triggers, err := pgx.CollectRows(rows, pgx.RowToStructByName[trigger])
	if err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	return triggers, nil
}

// conflict refuses to install over what belongs to another table or was made by somebody else.
func (i *installed) conflict(t *table) error {
	if i.View && !i.ours() {
		return errors.New("auditstream.progress exists and was not made by install, so it is left alone: drop it, or keep" +
			" it and do not install")
	}
	for _, r := range i.reads {
		if r.OID != t.OID {
			return fmt.Errorf("auditstream is installed on %s, not on %s: uninstall it first", r.Display, t.Display)
		}
	}
	for _, trigger := range i.triggers {
		if !trigger.Copy && trigger.OID != t.OID {
			return fmt.Errorf("auditstream is installed on %s, not on %s: uninstall it first", trigger.Display, t.Display)
		}
	}
	return nil
}

// replaceable says whether "create or replace view" would take the place of the view that is there.
func (i *installed) replaceable(m *mapping) bool {
	want := []viewColumn{{Name: "audit_id", Type: "bigint"}}
	for _, c := range m.columns {
		want = append(want, viewColumn{Name: c.name, Type: viewTypes[c.name], Collation: c.collation()})
	}
	return slices.EqualFunc(want, i.columns, func(want, have viewColumn) bool {
		return want.Name == have.Name && want.Type == have.Type &&
			(want.Name == "status" || want.Collation == have.Collation)
	})
}
