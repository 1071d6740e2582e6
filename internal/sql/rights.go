package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// RightsError says in sentences, with the remedy, what the current role may not do. Nothing was changed.
type RightsError []string

func (e RightsError) Error() string { return strings.Join(e, "; ") }

// rightsSQL says in sentences which rights the script needs and the current role lacks, and which the triggers need and writers lack. The
// table's oid is 0 when the script will make it.
const rightsSQL = `
	with me as (
		select current_user::text as name, pg_catalog.format('"%s"', pg_catalog.replace(current_user, '"', '""')) as quoted,
		       pg_catalog.format('"%s"', pg_catalog.replace(pg_catalog.current_database(), '"', '""')) as database, n.oid as schema, n.oid is null as new_schema
		from (values (1)) one left join pg_catalog.pg_namespace n on n.nspname = 'auditstream'
	)
	select 'this server is a standby, which only reads: name the primary' from me where pg_catalog.pg_is_in_recovery()
	union all
	select pg_catalog.format('the role %s may not create the schema auditstream: let the owner of the database run: grant create on database %s to %s', name, database, quoted)
		from me where new_schema and not pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create')
	union all
	select pg_catalog.format('the role %s may not create anything in the schema auditstream: install as the role that owns it', name)
		from me where not new_schema and not pg_catalog.has_schema_privilege(schema, 'create')
	union all
	select pg_catalog.format('auditstream.%s belongs to %s: install as that role', c.relname, pg_catalog.pg_get_userbyid(c.relowner))
		from me join pg_catalog.pg_class c on c.relnamespace = schema where c.relname in ('progress', 'feeds', 'choices') and not pg_catalog.pg_has_role(c.relowner, 'usage')
	union all
	select pg_catalog.format('the role %s may not create tables in the schema %s: grant create on schema %s to %s', name, $2::text, $4::text, quoted)
		from me join pg_catalog.pg_namespace n on n.nspname = $2::text where $1 = 0::oid and not pg_catalog.has_schema_privilege(n.oid, 'create')
	union all
	select pg_catalog.format('the role %s may not use the schema %s: grant usage on schema %s to %s', name, $2::text, $4::text, quoted)
		from me, pg_catalog.pg_class c where c.oid = $1 and not pg_catalog.has_schema_privilege(c.relnamespace, 'usage')
	union all
	select pg_catalog.format('the role %s may not create triggers on %s: install as its owner, %s, or let it run: grant trigger on %s to %s', name, $3::text, $6::text, $5::text, quoted)
		from me, pg_catalog.pg_class c where c.oid = $1 and $8 and not pg_catalog.has_table_privilege(c.oid, 'trigger')
	union all
	(select pg_catalog.format('the role %s may not read column %s of %s: install as its owner, %s, or let it run: grant select on %s to %s', name, a, $3::text, $6::text, $5::text, quoted)
		from me, pg_catalog.pg_class c, pg_catalog.unnest($7::text[]) a where c.oid = $1 and not pg_catalog.has_column_privilege(c.oid, a, 'select') limit 1)
	union all
	(select pg_catalog.format('not everybody may execute %s, so that writers of %s, or serve, would fail: grant execute on function pg_catalog.%1$s to public', f, $3::text)
		from me, pg_catalog.unnest(` + calledFunctions + `) f
			join pg_catalog.pg_proc p on p.oid = f::pg_catalog.regprocedure
		where $8 and not exists (select from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) x where x.grantee = 0))`

func missingRights(ctx context.Context, conn *pgx.Conn, o Options, t *table, m *mapping, there *installation) ([]string, error) {
	var columns []string
	if m.own == nil { // otherwise the query was prepared, which checks the rights
		for _, source := range m.sources() {
			columns = append(columns, source.Name)
		}
	}
	strangers := owners(there.Made.Objects, func(o object) bool { return !there.trusts(o) })
	if there.Choices == "closed" {
		strangers = owners(there.Made.Objects, func(object) bool { return true })
	}
	lacking, err := texts(ctx, conn, "roles", `select rolname::text from pg_catalog.pg_roles
		where rolname = any ($1::text[]) and not pg_catalog.pg_has_role(oid, 'usage') order by 1`, strangers)
	if err != nil || len(lacking) > 0 {
		return there.rightsRemedy(lacking, "install"), err
	}
	lacking, err = texts(ctx, conn, "the rights of the current role", there.in(rightsSQL), t.OID, t.Schema, t.Display, ident(t.Schema), t.quoted(), t.Owner, columns, !o.NoTriggers)
	for _, r := range m.rings {
		if err == nil && !o.NoTriggers {
			var more []string
			more, err = texts(ctx, conn, "the rights of the current role", ringRightsSQL, r.table.OID, r.table.Display, r.table.quoted(), r.table.Owner)
			lacking = append(lacking, more...)
		}
	}
	return lacking, err
}

const ringRightsSQL = `
	select pg_catalog.format('the role %s may not create triggers on %s, which is to ring: install as its owner, %s, or let it run: grant trigger on %s to %s', current_user, $2::text, $4::text, $3::text,
		pg_catalog.format('"%s"', pg_catalog.replace(current_user, '"', '""')))
	where not pg_catalog.has_table_privilege($1::oid, 'trigger')`

// rightsRemedy says who may install or uninstall what belongs to roles whose rights the current role lacks.
func (i *installation) rightsRemedy(lacking []string, operation string) []string {
	if len(lacking) == 0 {
		return nil
	}
	var names []string
	for _, role := range lacking {
		names = append(names, ident(role))
	}
	if slices.ContainsFunc(slices.Collect(maps.Values(i.Made.Objects)), func(o object) bool { return o.Super && slices.Contains(lacking, o.Owner) }) {
		return []string{fmt.Sprintf("this takes the rights of %s, a superuser, which %s does not have: %s as a superuser", strings.Join(lacking, " and of "), i.Made.Installer, operation)}
	}
	return []string{fmt.Sprintf("this takes the rights of %s, which %s does not have: %s as a superuser, or as a role that has the rights of all, with: grant %s to %s",
		strings.Join(lacking, " and of "), i.Made.Installer, operation, strings.Join(names, ", "), ident(i.Made.Installer))}
}

// explain adds to a server error of a script what it means for the user.
func explain(operation string, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", operation, err)
	}
	why := map[string]string{ // insufficient_privilege, dependent_objects_still_exist
		"42501": "the current role lacks a right, so nothing was changed; try it as the table's owner",
		"2BP01": "something else depends on it, so nothing was changed (" + refused.Detail + ")",
	}[refused.Code]
	return fmt.Errorf("%s: %s: %w", operation, cmp.Or(why, "nothing was changed"), err)
}
