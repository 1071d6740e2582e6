package sql

import (
	"context"
	"fmt"
)

// fingerprintSQL computes a checksum of the transaction ids (xmin) of the catalog's rows about our schema, the tables that its views read or
// its triggers are on, and what belongs to them. VACUUM and ANALYZE do not change these ids. A change of the choices is seen in the
// statistics, seconds later; the table itself may belong to somebody else by now, and is not read.
const fingerprintSQL = `
	with ours as (
		select n.oid from pg_catalog.pg_namespace n where n.nspname = 'auditstream'
	), relations as (
		select c.oid from pg_catalog.pg_class c join ours on c.relnamespace = ours.oid
		union select t.tgrelid from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join ours on p.pronamespace = ours.oid
		union select d.refobjid from pg_catalog.pg_depend d join pg_catalog.pg_rewrite w on w.oid = d.objid
			join pg_catalog.pg_class v on v.oid = w.ev_class join ours on v.relnamespace = ours.oid
		where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
	), found as (
		select oid, xmin, 'pg_class' as catalog from pg_catalog.pg_class where oid in (select oid from relations)
		union all select attrelid, xmin, 'pg_attribute' from pg_catalog.pg_attribute where attrelid in (select oid from relations)
		union all select oid, xmin, 'pg_trigger' from pg_catalog.pg_trigger where tgrelid in (select oid from relations)
		union all select indexrelid, xmin, 'pg_index' from pg_catalog.pg_index where indrelid in (select oid from relations)
		union all select oid, xmin, 'pg_policy' from pg_catalog.pg_policy where polrelid in (select oid from relations)
		union all select oid, xmin, 'pg_rewrite' from pg_catalog.pg_rewrite where ev_class in (select oid from relations)
		union all select oid, xmin, 'pg_proc' from pg_catalog.pg_proc where pronamespace in (select oid from ours)
		union all select oid, xmin, 'pg_namespace' from pg_catalog.pg_namespace where oid in (select oid from ours)
			or oid in (select c.relnamespace from pg_catalog.pg_class c where c.oid in (select oid from relations))
	)
	select pg_catalog.md5(pg_catalog.concat(pg_catalog.count(*), pg_catalog.string_agg(pg_catalog.concat_ws(' ', catalog, oid, xmin), ',' order by catalog, oid, xmin::text),
		(select pg_catalog.concat_ws(' ', '', pg_catalog.pg_stat_get_tuples_inserted(c.oid), pg_catalog.pg_stat_get_tuples_updated(c.oid), pg_catalog.pg_stat_get_tuples_deleted(c.oid))
			from pg_catalog.pg_class c join ours on c.relnamespace = ours.oid where c.relname = 'choices')))
	from found`

// Fingerprint returns a text that changes when the catalog changes about something that [Compare] looks at, except for roles and the rights to
// PostgreSQL's own functions. It takes one statement.
func Fingerprint(ctx context.Context, q Querier) (string, error) {
	var sum string
	err := q.QueryRow(ctx, fingerprintSQL).Scan(&sum)
	if err != nil {
		return "", fmt.Errorf("read what the catalog says of the schema auditstream: %w", err)
	}
	return sum, nil
}
