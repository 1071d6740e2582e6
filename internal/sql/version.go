package sql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// SchemaVersion is the version of what install.sql makes. The first change of that file after a release, except of comments, raises it:
//
//	1  triggers for each row, which notify of every change
//	2  the table auditstream.watch: they notify only of watched rows
//	3  triggers for each statement
//	4  these no longer compare each row of a statement with each other
//	5  locks instead of the table: triggers for each row, whose conditions try a lock and notify; not released yet
//
// testdata has the install.sql of each earlier version.
const SchemaVersion = 5

var stamped = regexp.MustCompile(`^auditstream ([0-9]{1,9}) `)

// versionOf reads the version from the comment on the view. The comments of versions 1 to 3 all say 1; their objects tell them apart.
func versionOf(comment string, watch, prepare bool) int {
	match := stamped.FindStringSubmatch(comment)
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[1]) // nine digits fit into an int
	if n == 1 && watch {
		n = 2
		if prepare {
			n = 3
		}
	}
	return n
}

// checkVersion refuses an installation of a later program, because this one does not know all of it.
func (i *installation) checkVersion() error {
	if v := i.version(); v > SchemaVersion {
		return fmt.Errorf("the installed schema has version %d, newer than this program's, which is %d, so it is left alone: upgrade the program;"+
			" to go back to this one, run the newer program's uninstall first", v, SchemaVersion)
	}
	return nil
}

// A Schema is what serve needs to know about the installation: that of audits or, without it, of another feed.
type Schema struct {
	// Version is the installed version; 0 when there is no view, or a handwritten one.
	Version int
	// Table is the adopted table, quoted and with its schema; empty when the catalog does not say.
	Table string
	// Role is the current role.
	Role string
	// Triggers says that there are triggers, and Always that they notify of every change because install was asked to.
	Triggers, Always bool
}

// Querier is the part of a pgx pool or connection that ReadSchema needs.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const schemaSQL = `
	select current_user::text, coalesce(pg_catalog.obj_description(v.oid, 'pg_class'), ''),
	       exists (select from pg_catalog.pg_class w where w.relnamespace = n.oid and w.relname = 'watch' and w.relkind = 'r'),
	       exists (select from pg_catalog.pg_proc p where p.pronamespace = n.oid and p.proname = 'prepare_watch'), t.oid is not null,
	       coalesce(f.prosrc like '%true /* --notify-always */%' or f.proname = 'changed' and pg_catalog.pg_get_triggerdef(t.oid) like '%WHEN (false AND %', false),
	       coalesce(pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(c.relname), '')
	from pg_catalog.pg_namespace n
		join pg_catalog.pg_class v on v.relnamespace = n.oid and (v.relname = 'progress' or v.relname like 'progress\_%') and v.relkind = 'v'
		left join pg_catalog.pg_proc f on f.pronamespace = n.oid and f.proname in ('changed', 'notify_change') and f.pronargs = 0
		left join pg_catalog.pg_trigger t on t.tgfoid = f.oid and t.tgparentid = 0::oid and t.tgname = 'auditstream' || substr(v.relname, 9) || '_update'
		left join pg_catalog.pg_rewrite r on r.ev_class = v.oid
		left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
			and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> v.oid
		left join pg_catalog.pg_class c on c.oid = coalesce(t.tgrelid, d.refobjid)
		left join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
	where n.nspname = 'auditstream' order by v.relname, t.oid is null limit 1`

// ReadSchema reads the catalog with a single query. It needs no rights: what it reads, every role may.
func ReadSchema(ctx context.Context, db Querier) (Schema, error) {
	var s Schema
	var comment string
	var watch, prepare bool
	err := db.QueryRow(ctx, schemaSQL).Scan(&s.Role, &comment, &watch, &prepare, &s.Triggers, &s.Always, &s.Table)
	if errors.Is(err, pgx.ErrNoRows) {
		return Schema{}, nil
	}
	if err != nil {
		return Schema{}, fmt.Errorf("read the version of the schema auditstream: %w", err)
	}
	s.Version = versionOf(comment, watch, prepare)
	return s, nil
}

// Lacks says what is worse than it would be after an install by this program; empty when nothing is.
func (s Schema) Lacks() string {
	switch {
	case s.Version == 0 || s.Version >= SchemaVersion || !s.Triggers:
		return ""
	case s.Version == 1:
		return "its triggers notify of every change, watched or not, so that concurrent writers wait for each other's commits"
	default:
		return "its triggers do not know what this program watches, so that changes are found by the safety net alone; and roles that may make" +
			" triggers or columns can run code as whoever installed"
	}
}
