package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// connectPrefix begins the comment on the schema that lists, as JSON, the roles that install granted CONNECT, so that
// uninstall can take back exactly that. The other grants go with the objects they are on.
const connectPrefix = "auditstream granted connect to "

// connected reads the roles from the comment on the schema.
func connected(comment string) []string {
	list, ok := strings.CutPrefix(comment, connectPrefix)
	if !ok {
		return nil
	}
	var roles []string
	err := json.Unmarshal([]byte(list), &roles)
	if err != nil {
		return nil // written by somebody else: nothing of it is ours to revoke
	}
	return roles
}

// grantsFor are the statements that the view, the role and those who serve already need.
func grantsFor(ctx context.Context, conn *pgx.Conn, o Options, i *installed, dropView bool) ([]string, error) {
	role := o.Role
	var grants []string
	if dropView {
		kept, err := viewGrants(ctx, conn)
		if err != nil {
			return nil, err
		}
		grants = kept
	}
	if i.ours() && !i.Feeds && !o.NoTriggers {
		readers, err := viewReaders(ctx, conn)
		if err != nil {
			return nil, err
		}
		for _, reader := range readers {
			grants = append(grants, feedsGrant(reader))
		}
	}
	if role == "" {
		return grants, nil
	}
	role, err := findRole(ctx, conn, role)
	if err != nil {
		return nil, err
	}
	added, err := roleGrants(ctx, conn, role, i, o, dropView)
	if err != nil {
		return nil, err
	}
	return append(grants, added...), nil
}

// findRole returns the role's name as the catalog has it: as it is spelled, else as SQL folds it.
func findRole(ctx context.Context, conn *pgx.Conn, name string) (string, error) {
	var role string
	err := conn.QueryRow(ctx, `
		select rolname from pg_catalog.pg_roles where rolname in ($1::text, pg_catalog.lower($1::text))
		order by rolname = $1::text desc limit 1`,
		name).Scan(&role)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("there is no role %s: create it first, with: create role %s login password '...'",
			name, ident(name))
	}
	if err != nil {
		return "", fmt.Errorf("look up role %s: %w", name, err)
	}
	return role, nil
}

// roleGrants are the statements that give the role what serve needs and does not have. The view's are needed anew when
// the view is.
func roleGrants(ctx context.Context, conn *pgx.Conn, role string, i *installed, o Options, dropView bool) ([]string, error) {
	var database string
	var connect, usage, selects, feeds bool
	err := conn.QueryRow(ctx, `
		select pg_catalog.current_database(),
		       pg_catalog.has_database_privilege($1, pg_catalog.current_database(), 'connect'),
		       coalesce((select pg_catalog.has_schema_privilege($1, n.oid, 'usage')
		                 from pg_catalog.pg_namespace n where n.nspname = 'auditstream'), false),
		       coalesce((select pg_catalog.has_table_privilege($1, c.oid, 'select')
		                 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		                 where n.nspname = 'auditstream' and c.relname = 'progress'), false),
		       coalesce((select pg_catalog.has_table_privilege($1, c.oid, 'select')
		                 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		                 where n.nspname = 'auditstream' and c.relname = 'feeds'), false)`,
		role).Scan(&database, &connect, &usage, &selects, &feeds)
	if err != nil {
		return nil, fmt.Errorf("read the rights of role %s: %w", role, err)
	}
	var grants []string
	if !usage {
		grants = append(grants, fmt.Sprintf("grant usage on schema auditstream to %s;", ident(role)))
	}
	if !selects || dropView {
		grants = append(grants, fmt.Sprintf("grant select on auditstream.progress to %s;", ident(role)))
	}
	if !feeds && !o.NoTriggers {
		grants = append(grants, feedsGrant(role))
	}
	if !connect {
		roles := connected(i.SchemaComment)
		if !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
		list, err := json.Marshal(roles)
		if err != nil {
			return nil, fmt.Errorf("list roles: %w", err)
		}
		grants = append(grants, fmt.Sprintf("grant connect on database %s to %s;", ident(database), ident(role)),
			"-- so that uninstall takes back what was granted here, and no more",
			fmt.Sprintf("comment on schema auditstream is %s;", literal(connectPrefix+string(list))))
	}
	return grants, nil
}

// feedsGrant is the statement by which a role may read how the triggers are told what it watches.
func feedsGrant(role string) string {
	return fmt.Sprintf("grant select on auditstream.feeds to %s;", ident(role))
}

// viewReaders are the roles that were granted the view: they serve, and go on after an upgrade.
func viewReaders(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `
		select distinct pg_catalog.pg_get_userbyid(x.grantee)::text
		from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x
		where c.relname = 'progress' and x.privilege_type = 'SELECT' and x.grantee not in (0, c.relowner)
		  and c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'auditstream')
		order by 1`)
	if err != nil {
		return nil, fmt.Errorf("read who may read auditstream.progress: %w", err)
	}
	readers, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read who may read auditstream.progress: %w", err)
	}
	return readers, nil
}

// viewGrants are the statements that give a new view the rights of the one it replaces.
func viewGrants(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `
		select pg_catalog.format('grant %s%s on auditstream.progress to %s%s;', pg_catalog.lower(acl.privilege_type),
		           ' (' || pg_catalog.quote_ident(acl.attname) || ')',
		           case when acl.grantee = 0 then 'public'
		                else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end,
		           case when acl.is_grantable then ' with grant option' end)
		from (
			select c.relowner, null as attname, x.* from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x
			where c.relname = 'progress' and c.relnamespace = (
				select oid from pg_catalog.pg_namespace where nspname = 'auditstream')
			union all
			select c.relowner, a.attname, x.* from pg_catalog.pg_class c
				join pg_catalog.pg_attribute a on a.attrelid = c.oid, pg_catalog.aclexplode(a.attacl) x
			where c.relname = 'progress' and c.relnamespace = (
				select oid from pg_catalog.pg_namespace where nspname = 'auditstream')
		) acl
		where acl.grantee <> acl.relowner
		order by 1`)
	if err != nil {
		return nil, fmt.Errorf("read the grants on auditstream.progress: %w", err)
	}
	grants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the grants on auditstream.progress: %w", err)
	}
	return grants, nil
}
