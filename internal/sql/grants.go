package sql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// connectPrefix is the beginning of the comment on the schema, which lists as JSON the roles that got CONNECT from install, so that uninstall
// revokes exactly that. The other grants end with their objects.
const connectPrefix = "auditstream granted connect to "

// rolesWithConnect reads the roles from the comment on the schema.
func rolesWithConnect(comment string) []string {
	list, ok := strings.CutPrefix(comment, connectPrefix)
	var roles []string
	if !ok || json.Unmarshal([]byte(list), &roles) != nil {
		return nil // somebody else has written the comment: there is nothing to revoke
	}
	return roles
}

// grantsFor returns the grants for the views, for Options.Role, and for the roles of earlier installs; names are all of these roles.
func grantsFor(ctx context.Context, conn *pgx.Conn, o Options, i *installation, dropView, anew bool) (names, grants []string, err error) {
	names = i.roles()
	trusted := i.trusts(i.Made.Objects[i.viewObject()]) // grants on a view of an untrusted owner are not kept
	grants, err = texts(ctx, conn, "the grants on the view", i.in(keptSQL), dropView && trusted, i.madeByInstall() && !i.Feeds && !o.NoTriggers, anew && trusted)
	for _, name := range names {
		if err == nil {
			grants, err = grantRole(ctx, conn, o, i, grants, name, dropView, anew)
		}
	}
	if err != nil || o.Role == "" {
		return names, grants, err
	}
	roles, err := texts(ctx, conn, "the roles", `select rolname::text from pg_catalog.pg_roles where rolname in ($1::text, pg_catalog.lower($1::text))
		order by rolname = $1::text desc limit 1`, o.Role) // exactly as spelled, or else as SQL folds it
	if err != nil {
		return nil, nil, err
	}
	if len(roles) == 0 {
		return nil, nil, fmt.Errorf("there is no role %s: create it first, with: create role %s login password '...'", o.Role, ident(o.Role))
	}
	if slices.Contains(names, roles[0]) {
		return names, grants, nil
	}
	grants, err = grantRole(ctx, conn, o, i, grants, roles[0], dropView, anew)
	return append(names, roles[0]), grants, err
}

// roles returns the roles of earlier installs, or none when somebody else may have written the choices.
func (i *installation) roles() []string {
	if i.chosen == nil || !i.trusts(i.Made.Objects[choicesTable]) {
		return nil
	}
	return slices.Clone(i.chosen.Options.Roles)
}

// rolesOfOthers returns the roles of the other feeds' installs, for a message.
func (i *installation) rolesOfOthers() (names []string) {
	for _, c := range i.all {
		if c.Feed != string(i.naming) {
			names = append(names, c.Options.Roles...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// grantRole adds the grants that a role needs; none when the role does not exist any more.
func grantRole(ctx context.Context, conn *pgx.Conn, o Options, i *installation, grants []string, role string, dropView, anew bool) ([]string, error) {
	needs, err := texts(ctx, conn, "the rights of role "+role, i.in(roleGrantsSQL), role, ident(role), dropView, o.NoTriggers, anew)
	if err != nil {
		return nil, err
	}
	for _, grant := range needs {
		if !slices.Contains(grants, grant) {
			grants = append(grants, grant)
		}
		if strings.HasPrefix(grant, "grant connect") {
			all := slices.Compact(slices.Sorted(slices.Values(append(rolesWithConnect(i.SchemaComment), role))))
			list, _ := json.Marshal(all)                   // Marshal never fails for strings
			i.SchemaComment = connectPrefix + string(list) // also for the next role
			grants = append(grants, "-- so that uninstall takes back what was granted here, and no more",
				fmt.Sprintf("comment on schema auditstream is %s;", literal(i.SchemaComment)))
		}
	}
	return grants, nil
}

// roleGrantsSQL lists what the role needs to serve and does not have. The view's are needed anew when the view is.
const roleGrantsSQL = `
	with has as (
		select pg_catalog.has_database_privilege($1, pg_catalog.current_database(), 'connect') as connect,
		       pg_catalog.has_schema_privilege($1, n.oid, 'usage') as usage,
		       pg_catalog.has_table_privilege($1, k.oid, 'select') and not $5 as choices,
		       pg_catalog.has_table_privilege($1, v.oid, 'select') and not $3 as view, pg_catalog.has_table_privilege($1, f.oid, 'select') or $4 as feeds
		from pg_catalog.pg_roles u left join pg_catalog.pg_namespace n on n.nspname = 'auditstream'
			left join pg_catalog.pg_class k on k.relnamespace = n.oid and k.relname = 'choices'
			left join pg_catalog.pg_class v on v.relnamespace = n.oid and v.relname = 'progress'
			left join pg_catalog.pg_class f on f.relnamespace = n.oid and f.relname = 'feeds' where u.rolname = $1
	)
	select 'grant usage on schema auditstream to ' || $2 || ';' from has where usage is not true
	union all select 'grant select on auditstream.progress to ' || $2 || ';' from has where view is not true
	union all select 'grant select on auditstream.choices to ' || $2 || ';' from has where choices is not true
	union all select 'grant select on auditstream.feeds to ' || $2 || ';' from has where feeds is not true
	union all select pg_catalog.format('grant connect on database "%s" to %s;', pg_catalog.replace(pg_catalog.current_database(), '"', '""'), $2::text) from has where connect is not true`

// keptSQL lists what gives a new view the rights of the one it replaces ($1), and to those that were granted it what they need to serve
// after an upgrade ($2, $3: the choices are written anew).
const keptSQL = `
	with grants as (
		select acl.*, case when acl.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end as name
		from pg_catalog.pg_class c cross join lateral (
			select null as attname, x.* from pg_catalog.aclexplode(c.relacl) x
			union all select a.attname, x.* from pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x where a.attrelid = c.oid) acl
		where c.relname = 'progress' and c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'auditstream') and acl.grantee <> c.relowner
	)
	select pg_catalog.format('grant %s%s on auditstream.progress to %s%s;', pg_catalog.lower(privilege_type), ' (' || pg_catalog.quote_ident(attname) || ')', name,
		case when is_grantable then ' with grant option' end) from grants where $1
	union select 'grant select on auditstream.feeds to ' || name || ';' from grants where $2 and privilege_type = 'SELECT' and attname is null and grantee <> 0
	union select 'grant select on auditstream.choices to ' || name || ';' from grants where privilege_type = 'SELECT' and attname is null and grantee <> 0
		and ($3 or not pg_catalog.has_table_privilege(grantee, (select k.oid from pg_catalog.pg_class k join pg_catalog.pg_namespace n on n.oid = k.relnamespace where n.nspname = 'auditstream' and k.relname = 'choices'), 'select'))
	order by 1`
