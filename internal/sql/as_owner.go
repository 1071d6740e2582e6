package sql

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
)

// planAsOwner plans as the table's owner where the current role may act as it, so that what install makes belongs to that role, and each of its
// members can install again. It plans as the current role when the owner lacks rights that the current role has, and when something is
// installed that does not belong to the owner.
func planAsOwner(ctx context.Context, conn *pgx.Conn, o Options, t *table) (*Plan, error) {
	owners, err := collect(ctx, conn, "the table's owner", pgx.RowToStructByPos[tableOwner], tableOwnerSQL, t.OID)
	if err != nil || len(owners) == 0 {
		if err != nil {
			return nil, err
		}
		return planTable(ctx, conn, o, t)
	}
	owner := owners[0]
	err = execScript(ctx, conn, "savepoint auditstream_owner; set local role "+ident(owner.Name))
	var asOwner *Plan
	if err == nil {
		asOwner, err = owner.plan(ctx, conn, o, t.OID)
	}
	if isBusy(err) || err == nil && len(asOwner.rights) == 0 {
		return asOwner, err
	}
	if back := execScript(ctx, conn, "rollback to savepoint auditstream_owner"); back != nil {
		return nil, fmt.Errorf("reset the role: %w", back)
	}
	plan, failed := planTable(ctx, conn, o, t)
	switch {
	case failed != nil || err != nil:
		return plan, failed
	case len(plan.rights) > 0:
		return asOwner, nil // what it lacks is the better thing to grant
	case owner.First:
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("what this makes belongs to %s and not to %s, who owns %s: other members of %[2]s can neither install again nor uninstall it; to have it belong to %[2]s: %[4]s; then uninstall, and install again",
			owner.Me, owner.Name, t.Display, strings.Join(asOwner.rights, "; ")))
	}
	return plan, nil
}

// A tableOwner is a table's owner, as which the current role, Me, may act. First says that nothing is installed yet.
type tableOwner struct {
	Name, Me string
	First    bool
}

// tableOwnerSQL returns a row when the current role may act as the table's owner, and nothing is installed that does not belong to that role.
// Nobody becomes a superuser so.
const tableOwnerSQL = `
	select o.rolname::text, me.rolname::text, n.oid is null
	from pg_catalog.pg_class c join pg_catalog.pg_roles o on o.oid = c.relowner join pg_catalog.pg_roles me on me.rolname = current_user
		left join pg_catalog.pg_namespace n on n.nspname = 'auditstream'
	where c.oid = $1 and o.oid <> me.oid and not o.rolsuper and not me.rolsuper and coalesce(n.nspowner, o.oid) = o.oid and ` + maySetRole

// maySetRole is true when the current role, and the session's user, may become the role o.
const maySetRole = `pg_catalog.pg_has_role(current_user, o.oid, case when pg_catalog.current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)
	and pg_catalog.pg_has_role(session_user, o.oid, case when pg_catalog.current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)`

// plan plans as the owner, which is the current role. It reads the table again, because row level security does not apply to its owner.
func (w tableOwner) plan(ctx context.Context, conn *pgx.Conn, o Options, oid uint32) (*Plan, error) {
	t, err := loadTable(ctx, conn, oid)
	if err != nil {
		return nil, err
	}
	plan, err := planTable(ctx, conn, o, t)
	if err != nil || plan.SQL == "" {
		return plan, err
	}
	if strings.Contains(plan.SQL, "\ngrant connect on database ") {
		more, err := texts(ctx, conn, "the rights of the table's owner", mayGrantConnectSQL)
		if err != nil {
			return nil, err
		}
		plan.rights = append(plan.rights, more...)
	}
	plan.as = w.Name
	plan.SQL = strings.Replace(plan.SQL, searchPath, searchPath+"-- so that what is made belongs to the table's owner\nset local role "+ident(w.Name)+";\n", 1)
	plan.Notes = append(plan.Notes, fmt.Sprintf("what this makes belongs to %s, who owns %s", w.Name, t.Display))
	return plan, nil
}

const mayGrantConnectSQL = `
	select pg_catalog.format('the role %s may not grant connect on this database: grant connect on database "%s" to "%s" with grant option', current_user,
		pg_catalog.replace(d.datname, '"', '""'), pg_catalog.replace(current_user, '"', '""'))
	from pg_catalog.pg_database d where d.datname = pg_catalog.current_database() and not pg_catalog.pg_has_role(d.datdba, 'usage')
		and not pg_catalog.has_database_privilege(d.oid, 'connect with grant option')`

// roleOption is the parameter with which DATABASE_URL connects as a role that the user may act as.
func roleOption(role string) string {
	escaped := strings.NewReplacer(`\`, `\\`, " ", `\ `).Replace(role)
	return "options=" + strings.ReplaceAll(url.QueryEscape("-c role="+escaped), "+", "%20")
}
