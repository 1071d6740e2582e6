package sql

// missingRightsSQL finds missing rights and hidden rows: for the roles of serve ($1, and the current role when $2), for the view's owner, with
// whose rights it is read, and for writers. With lookups ($3) it also finds a table that became a view: up to PostgreSQL 15 the owner of
// an empty table can do that with a rule, and what the view calls would run with the reader's rights.
const missingRightsSQL = `
	with v as (
		select v.oid, v.relowner, pg_catalog.pg_get_userbyid(v.relowner) as owner
		from pg_catalog.pg_class v join pg_catalog.pg_namespace n on n.oid = v.relnamespace where n.nspname = 'auditstream' and v.relname = 'progress' and v.relkind = 'v'
	), columns as (
		select distinct d.refobjid as oid, d.refobjsubid as attnum from v join pg_catalog.pg_rewrite w on w.ev_class = v.oid
			join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
		where d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> v.oid
	), tables as (
		select t.oid, t.relkind, t.relnamespace, t.relforcerowsecurity, t.relrowsecurity, pg_catalog.format('%I.%I', n.nspname, t.relname) as name,
		       pg_catalog.pg_has_role(v.relowner, t.relowner, 'usage') as owns, v.relowner, v.owner
		from v cross join (select distinct oid from columns) x join pg_catalog.pg_class t on t.oid = x.oid join pg_catalog.pg_namespace n on n.oid = t.relnamespace
	)
	select 'rights' as kind, pg_catalog.format('the role %s may not read %s', u.rolname, pg_catalog.string_agg('auditstream.' || c.relname, ', ' order by c.relname)) as text,
		'' as remedy, false as stale
	from pg_catalog.pg_roles u, pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where (u.rolname = any ($1::text[]) or $2 and u.rolname = current_user) and n.nspname = 'auditstream' and c.relname in ('progress', 'feeds', 'choices') and c.relkind in ('v', 'r')
	  and not (pg_catalog.has_schema_privilege(u.oid, n.oid, 'usage') and pg_catalog.has_table_privilege(u.oid, c.oid, 'select')) group by u.rolname
	union all
	select 'owner', pg_catalog.format('%s, who owns auditstream.progress and with whose rights it is read, may not read %s', owner, name), '', false
	from tables t where not pg_catalog.has_schema_privilege(t.relowner, t.relnamespace, 'usage')
		or exists (select from columns c where c.oid = t.oid and c.attnum > 0 and not pg_catalog.has_column_privilege(t.relowner, t.oid, c.attnum::int2, 'select'))
	union all
	select 'row_security', pg_catalog.format('row level security of %s applies to %s, who owns auditstream.progress: rows that it may not see are hidden from every viewer', name, owner),
		pg_catalog.format('alter table %s no force row level security, or let a role that has bypassrls, or owns the table, own the view: install as that role', name), false
	from tables t where t.relrowsecurity and not (t.owns and not t.relforcerowsecurity)
		and not exists (select from pg_catalog.pg_roles u where u.oid = t.relowner and (u.rolsuper or u.rolbypassrls))
		and not (exists (select from pg_catalog.pg_policy p where p.polrelid = t.oid and p.polpermissive and p.polcmd in ('r', '*') and pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true'
				and exists (select from pg_catalog.unnest(p.polroles) x where x = 0 or pg_catalog.pg_has_role(t.relowner, x, 'usage')))
			and not exists (select from pg_catalog.pg_policy p where p.polrelid = t.oid and not p.polpermissive))
	union all
	select 'table', pg_catalog.format('%s is a view now, of which the view reads whose a row is: what it calls runs with the rights of those who read', name),
		pg_catalog.format('drop view %s cascade, create the table again, and install again', name), true
	from tables where $3 and relkind = 'v'
	union all
	select 'rights', pg_catalog.format('not everybody may execute %s, so that writes to the table, or serve, fail', f), pg_catalog.format('grant execute on function pg_catalog.%s to public', f), false
	from v, pg_catalog.unnest(` + calledFunctions + `) f join pg_catalog.pg_proc p on p.oid = f::pg_catalog.regprocedure
	where not exists (select from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) x where x.grantee = 0)`

// calledFunctions are the functions that the triggers' conditions and serve call.
const calledFunctions = `'{"pg_try_advisory_lock(integer,integer)", "pg_advisory_unlock(integer,integer)", "pg_notify(text,text)", hashint8(bigint), "pg_try_advisory_lock_shared(integer,integer)", "pg_advisory_unlock_shared(integer,integer)", "pg_advisory_unlock_all()"}'::text[]`
