package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// PlanUninstall returns what [Uninstall] would run. It only reads, in a transaction of its own, so conn must not be in one. Of the options it
// uses the feed, the lock time-outs and the logger; the triggers and the view say which table it is.
func PlanUninstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	return withMissingRights(planReadOnly(ctx, conn, o, planUninstall))
}

// Uninstall removes the triggers, the view, the function, the schema and what install granted, in one transaction, and waits for locks as
// carefully as [Install]. Plan.SQL is empty when there is nothing to remove. It never drops what somebody else made in the schema; then
// the schema stays, and a warning says why.
func Uninstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	return run(ctx, conn, o, "uninstall", planUninstall)
}

func planUninstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	err := execScript(ctx, conn, withoutPolicies)
	if err != nil {
		return nil, fmt.Errorf("set search_path: %w", err)
	}
	there, err := loadInstalled(ctx, conn, defaultFeed)
	if err != nil {
		return nil, err
	}
	if there.Choices == "closed" {
		return nil, there.closedRights(ctx, conn)
	}
	more, views, last, err := there.otherFeeds(ctx, conn, o.Feed)
	if err != nil {
		return nil, err
	}
	if !last {
		plan := &Plan{Schema: there.version(), Table: there.tableOf(o.Feed)}
		if more != "" {
			more += fmt.Sprintf("delete from auditstream.choices where feed = %s;\nnotify auditstream, '*';", literal(o.Feed))
			plan.SQL = render(uninstallSQL, map[string]string{"lock_wait": milliseconds(o.LockWait), "lock_timeout": milliseconds(o.LockTimeout), "more": more, "revokes": ""})
		}
		return plan, nil
	}
	plan := &Plan{Schema: there.version(), lockReaders: true, Last: true}
	err = errors.Join(there.checkVersion(), there.checkSchemaName(), there.ownTable(plan))
	if err != nil || !there.Schema {
		return plan, err
	}
	foreign, err := texts(ctx, conn, "schema auditstream", foreignSQL, there.madeByInstall(), views)
	if err != nil {
		return nil, err
	}
	if len(foreign) > 0 {
		plan.Warnings = append(plan.Warnings, "the schema auditstream stays, because it holds what install did not make: "+strings.Join(foreign, ", "))
	}
	revokes, err := texts(ctx, conn, "roles", `select pg_catalog.format('revoke connect on database %I from %I;', pg_catalog.current_database(), rolname)
		from pg_catalog.pg_roles where rolname = any ($1::text[]) order by rolname`, rolesWithConnect(there.SchemaComment))
	if err != nil {
		return nil, err
	}
	if len(foreign) > 0 && strings.HasPrefix(there.SchemaComment, connectPrefix) {
		revokes = append(revokes, "comment on schema auditstream is null;")
	}
	plan.rights, err = there.missingDropRights(ctx, conn)
	if err != nil {
		return nil, err
	}
	if !there.madeByInstall() && !there.Old && !there.Feeds && there.Choices == "" && len(there.Triggers) == 0 && len(revokes) == 0 && len(foreign) > 0 {
		return plan, nil
	}
	plan.SQL = render(uninstallSQL, map[string]string{
		"table": plan.Table, "lock_wait": milliseconds(o.LockWait), "lock_timeout": milliseconds(o.LockTimeout),
		"triggers": strconv.FormatBool(len(there.Triggers) > 0), "view": strconv.FormatBool(there.madeByInstall()),
		"more": more + strings.Join(there.dropStaleTriggers(cmp.Or(plan.table, &table{}), nil), "\n"), "objects": "true", "schema": strconv.FormatBool(len(foreign) == 0),
		"revokes": strings.Join(revokes, "\n"),
	})
	return plan, nil
}

// otherFeeds returns the statements that remove one feed or, when it is the last one or feed is empty, all feeds but audits. views are the
// names of their views and functions.
func (i *installation) otherFeeds(ctx context.Context, conn *pgx.Conn, feed string) (statements string, views []string, last bool, err error) {
	views = []string{}
	last = feed == "" || !slices.ContainsFunc(i.all, func(c *choices) bool { return c.Feed != feed })
	for _, c := range i.all {
		if last && c.Feed == defaultFeed || !last && c.Feed != feed || !feedName.MatchString(c.Feed) {
			continue
		}
		one, err := loadInstalled(ctx, conn, c.Feed)
		if err != nil {
			return "", nil, false, err
		}
		statements += fmt.Sprintf("drop view if exists auditstream.%s;\n", one.view())
		views = append(views, one.view())
		if name := c.Options.Report; name != "" {
			statements += reportSQL(name)
			views = append(views, name)
		}
		for _, t := range one.Triggers {
			if !t.Copy && one.known(t.Trigger) {
				statements += fmt.Sprintf("drop trigger if exists %s on %s;\n", ident(t.Trigger), t.table().quoted())
			}
		}
	}
	return statements, views, last, nil
}

// tableOf returns a feed's table, for messages.
func (i *installation) tableOf(feed string) string {
	for _, c := range i.all {
		if c.Feed == feed {
			return ident(c.Made.Schema, c.Made.Name)
		}
	}
	return ""
}

// ownTable finds the table by the triggers that call our function, or else by our view. It fails when there are triggers that install did not
// make.
func (i *installation) ownTable(plan *Plan) error {
	var strangers []string
	for _, t := range i.Triggers {
		known := i.known(t.Trigger) || i.chosen != nil && i.originalTrigger("trigger "+t.Trigger) != ""
		switch {
		case t.Copy || i.rings(t.Trigger):
			continue
		case known && plan.table == nil:
			plan.table = t.table()
		}
		if !known { // one of a table that another has replaced is detached
			strangers = append(strangers, fmt.Sprintf("drop trigger %s on %s", ident(t.Trigger), t.table().quoted()))
		}
	}
	if len(strangers) > 0 {
		return fmt.Errorf("triggers that install did not make call functions of auditstream's; drop them first, with: %s", strings.Join(strangers, "; "))
	}
	if plan.table == nil && i.madeByInstall() && len(i.Reads) == 1 {
		plan.table = i.Reads[0].table()
	}
	if plan.table != nil {
		plan.Table = plan.table.quoted()
	}
	return nil
}

// missingDropRights says which roles' rights uninstall needs and the current role does not have.
func (i *installation) missingDropRights(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	lacking, err := texts(ctx, conn, "roles", `
		select distinct u.rolname::text from pg_catalog.pg_namespace n, pg_catalog.pg_roles u where n.nspname = 'auditstream' and not pg_catalog.pg_has_role(u.oid, 'usage')
		  and (u.oid = n.nspowner or not pg_catalog.pg_has_role(n.nspowner, 'usage') and u.rolname = any ($1::text[])
			or exists (select from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_proc p on p.oid = t.tgfoid
				where p.pronamespace = n.oid and t.tgparentid = 0 and c.relowner = u.oid)) order by 1`, owners(i.Made.Objects, func(object) bool { return true }))
	if err != nil {
		return nil, err
	}
	return i.rightsRemedy(ctx, conn, lacking, "uninstall")
}

// closedRights says which rights uninstall needs to read the choices. Without them nothing is known of other feeds, and their triggers would
// seem to be somebody else's.
func (i *installation) closedRights(ctx context.Context, conn *pgx.Conn) error {
	lacking, err := texts(ctx, conn, "roles", `
		select u.rolname::text from pg_catalog.pg_roles u join pg_catalog.pg_namespace n on n.nspname = 'auditstream'
			join pg_catalog.pg_class k on k.relnamespace = n.oid and k.relname = 'choices'
		where u.oid in (n.nspowner, k.relowner) and not pg_catalog.pg_has_role(u.oid, 'usage') order by 1`)
	if err == nil && len(lacking) > 0 {
		lacking, err = i.rightsRemedy(ctx, conn, lacking, "uninstall")
	} else if err == nil {
		lacking = []string{fmt.Sprintf("the role %s may not read auditstream.choices, which says what install made: grant select on auditstream.choices to %s", i.Made.Installer, ident(i.Made.Installer))}
	}
	if err != nil {
		return err
	}
	return RightsError(lacking)
}

// foreignSQL lists what is in the schema and was not made by install.
const foreignSQL = `
	select pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
	from pg_catalog.pg_depend d
		left join pg_catalog.pg_class c on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.objid
		left join pg_catalog.pg_proc p on d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = d.objid
	where d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
	  and d.refobjid = (select oid from pg_catalog.pg_namespace where nspname = 'auditstream')
	  and not coalesce(c.relname = 'progress' and $1 or c.relname = any ($2::text[]) and c.relkind = 'v' or (c.relname, c.relkind) in (('watch', 'r'), ('feeds', 'v'), ('choices', 'r')), false)
	  and not coalesce(p.proname = any ($2::text[]) and p.pronargs = 6, false)
	  and not coalesce((p.proname, p.pronargs) in (('changed', 0), ('notify_change', 0), ('unwatch', 2), ('prepare_watch', 0)), false)
	order by 1`
