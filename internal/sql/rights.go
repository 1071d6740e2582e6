package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
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
		if err == nil {
			lacking, err = there.rightsRemedy(ctx, conn, lacking, "install")
		}
		return lacking, err
	}
	if lost := there.feedsLost(); lost != "" {
		return []string{lost}, nil
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

// feedsLost says which feeds serve would not find any more: install.sql makes the choices anew when they belong to another role, because that
// role can have written anything there, and then has only those of its own feed. It is "" when there are none, and when the role is not
// trusted: then nothing of what it has written is to be kept.
func (i *installation) feedsLost() string {
	table := i.Made.Objects[choicesTable]
	if table.Owner == "" || table.Owner == i.Made.Installer || !i.trusts(table) {
		return ""
	}
	var feeds []string
	for _, c := range i.all {
		if c.Feed != string(i.naming) {
			feeds = append(feeds, c.Feed)
		}
	}
	if len(feeds) == 0 {
		return ""
	}
	return fmt.Sprintf("auditstream.choices belongs to %s, and %s would lose what it says of other feeds (%s): install as that role, with %s among the parameters of DATABASE_URL",
		table.Owner, i.Made.Installer, some(feeds), roleOption(table.Owner))
}

const ringRightsSQL = `
	select pg_catalog.format('the role %s may not create triggers on %s, which is to ring: install as its owner, %s, or let it run: grant trigger on %s to %s', current_user, $2::text, $4::text, $3::text,
		pg_catalog.format('"%s"', pg_catalog.replace(current_user, '"', '""')))
	where not pg_catalog.has_table_privilege($1::oid, 'trigger')`

// rightsRemedy says who may install or uninstall what belongs to roles whose rights the current role lacks: only what PostgreSQL accepts.
func (i *installation) rightsRemedy(ctx context.Context, conn *pgx.Conn, lacking []string, operation string) ([]string, error) {
	if len(lacking) == 0 {
		return nil, nil
	}
	this := fmt.Sprintf("this takes the rights of %s, which %s does not have: %s", strings.Join(lacking, " and of "), i.Made.Installer, operation)
	if slices.ContainsFunc(slices.Collect(maps.Values(i.Made.Objects)), func(o object) bool { return o.Super && slices.Contains(lacking, o.Owner) }) {
		return []string{this + " as a superuser"}, nil
	}
	ways, err := collect(ctx, conn, "roles", pgx.RowToStructByPos[roleWays], roleWaysSQL, lacking)
	if err != nil {
		return nil, err
	}
	if len(ways) == 1 && ways[0].Set {
		return []string{fmt.Sprintf("%s as that role, with %s among the parameters of DATABASE_URL, or as a superuser", this, roleOption(ways[0].Name))}, nil
	}
	text := this + " as a superuser"
	if !slices.ContainsFunc(ways, func(w roleWays) bool { return w.Member }) {
		var names []string
		for _, role := range lacking {
			names = append(names, ident(role))
		}
		text += fmt.Sprintf(", or as a role that has the rights of all, with: grant %s to %s", strings.Join(names, ", "), ident(i.Made.Installer))
	}
	hand, err := i.handOver(ctx, conn, lacking)
	return []string{text + hand}, err
}

// roleWays are how the current role could get a role's rights: Set says that it may act as it, and Member that the role is a member of the
// current one, so that it cannot be granted to it.
type roleWays struct {
	Name        string
	Set, Member bool
}

const roleWaysSQL = `select o.rolname::text, ` + maySetRole + `, not o.rolsuper and pg_catalog.pg_has_role(o.oid, current_user, 'member')
	from pg_catalog.pg_roles o where o.rolname = any ($1::text[]) order by 1`

// handOver says how what these roles own in the schema can become the table's owner's, after which each member of that role can install; "" when
// that is one of them, or there are several tables.
func (i *installation) handOver(ctx context.Context, conn *pgx.Conn, from []string) (string, error) {
	type owned struct{ Table, Owner string }
	tables, err := collect(ctx, conn, "the tables' owners", pgx.RowToStructByPos[owned], `
		select distinct pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_userbyid(c.relowner)::text
		from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace ours on ours.oid = p.pronamespace and ours.nspname = 'auditstream'
			join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where t.tgparentid = 0`)
	if err != nil || len(tables) != 1 || slices.Contains(from, tables[0].Owner) {
		return "", err
	}
	to := tables[0]
	alter, err := texts(ctx, conn, "the owners in the schema auditstream", `
		select pg_catalog.format('alter %s owner to %s', x.what, $2::text) from (
			select 1 as n, 'schema auditstream' as what, nspowner as owner from pg_catalog.pg_namespace where nspname = 'auditstream'
			union all select 2, pg_catalog.format('%s auditstream.%I', case c.relkind when 'v' then 'view' else 'table' end, c.relname), c.relowner
				from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'auditstream' and c.relkind in ('v', 'r')
			union all select 3, pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure), p.proowner
				from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname = 'auditstream' and p.prokind = 'f'
		) x join pg_catalog.pg_roles o on o.oid = x.owner where o.rolname = any ($1::text[]) order by x.n, x.what`, from, ident(to.Owner))
	if err != nil || len(alter) == 0 {
		return "", err
	}
	return fmt.Sprintf("; or let a superuser give it all to %s, who owns %s, so that its members can, too, with: %s", to.Owner, to.Table, strings.Join(alter, "; ")), nil
}

// explain adds to a server error of a plan's script what it means for the user.
func explain(operation string, p *Plan, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", operation, err)
	}
	why := map[string]string{ // insufficient_privilege, dependent_objects_still_exist, out_of_memory
		"53200": p.lockTableIsFull(operation),
		"42501": "the current role lacks a right, so nothing was changed; try it as the table's owner",
		"2BP01": "something else depends on it, so nothing was changed (" + refused.Detail + ")",
	}[refused.Code]
	return fmt.Errorf("%s: %s: %w", operation, cmp.Or(why, "nothing was changed"), err)
}

var dropTrigger = regexp.MustCompile(`(?m)^drop trigger if exists .*;$`)

// lockTableIsFull says what to do when PostgreSQL has no room for the locks of a script: one for each partition, and to drop its triggers, one for
// each of them, until the commit. PostgreSQL drops those of the partitions before it locks the table, so without lock_timeout a writer could fail
// for a deadlock.
func (p *Plan) lockTableIsFull(operation string) string {
	const full = "PostgreSQL's lock table is full, so nothing was changed; raise max_locks_per_transaction, which takes a restart"
	if operation == "install" {
		return full + ", or install with --no-triggers"
	}
	drops := strings.Join(dropTrigger.FindAllString(p.SQL, -1), " ")
	if drops == "" {
		return full
	}
	return full + ", or drop the triggers first, each in a transaction of its own, which psql does with: set lock_timeout = '200ms'; " + drops + " and uninstall again"
}
