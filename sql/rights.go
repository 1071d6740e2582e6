package sql

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lackingRights says in sentences what the current role may not do and the script would.
func lackingRights(ctx context.Context, conn *pgx.Conn, o Options, t *table, m *mapping, there *installed) ([]string, error) {
	var me, database string
	var standby, createSchema, createInSchema, ownsView bool
	err := conn.QueryRow(ctx, `
		select current_user, pg_catalog.current_database(), pg_catalog.pg_is_in_recovery(),
		       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create'),
		       coalesce((select pg_catalog.has_schema_privilege(oid, 'create')
		                 from pg_catalog.pg_namespace where nspname = 'auditstream'), false),
		       $1 = '' or pg_catalog.pg_has_role(nullif($1, ''), 'usage')`, there.ViewOwner).
		Scan(&me, &database, &standby, &createSchema, &createInSchema, &ownsView)
	if err != nil {
		return nil, fmt.Errorf("read the rights of the current role: %w", err)
	}
	var lacking []string
	lack := func(format string, args ...any) { lacking = append(lacking, fmt.Sprintf(format, args...)) }
	if standby {
		lack("this server is a standby, which only reads: name the primary")
	}
	switch {
	case !there.Schema && !createSchema:
		lack("the role %s may not create the schema auditstream: let the owner of the database run: grant create on database %s to %s",
			me, ident(database), ident(me))
	case there.Schema && !createInSchema:
		lack("the role %s may not create anything in the schema auditstream: install as the role that owns it", me)
	}
	if !ownsView {
		lack("the view auditstream.progress belongs to %s: install as that role", there.ViewOwner)
	}
	if t.OID == 0 {
		missing, err := lackingForTable(ctx, conn, me, t)
		return append(lacking, missing...), err
	}
	var usage, triggers bool
	err = conn.QueryRow(ctx, `
		select pg_catalog.has_schema_privilege(relnamespace, 'usage'), pg_catalog.has_table_privilege(oid, 'trigger')
		from pg_catalog.pg_class where oid = $1`, t.OID).Scan(&usage, &triggers)
	if err != nil {
		return nil, fmt.Errorf("read the rights of %s on %s: %w", me, t.Display, err)
	}
	if !usage {
		lack("the role %s may not use the schema %s: grant usage on schema %s to %s", me, t.Schema, ident(t.Schema), ident(me))
	}
	if !triggers && !o.NoTriggers {
		lack("the role %s may not create triggers on %s: install as its owner, %s, or let it run: grant trigger on %s to %s",
			me, t.Display, t.Owner, t.quoted(), ident(me))
	}
	unreadable, err := unreadableColumns(ctx, conn, t, m)
	if err != nil {
		return nil, err
	}
	if unreadable != "" {
		lack("the role %s may not read column %s of %s: install as its owner, %s, or let it run: grant select on %s to %s",
			me, unreadable, t.Display, t.Owner, t.quoted(), ident(me))
	}
	return lacking, nil
}

func lackingForTable(ctx context.Context, conn *pgx.Conn, me string, t *table) ([]string, error) {
	var create *bool
	err := conn.QueryRow(ctx, `select pg_catalog.has_schema_privilege(
		(select oid from pg_catalog.pg_namespace where nspname = $1), 'create')`, t.Schema).Scan(&create)
	if err != nil {
		return nil, fmt.Errorf("read the rights of %s on schema %s: %w", me, t.Schema, err)
	}
	switch {
	case create == nil:
		return nil, fmt.Errorf("there is no schema %s to create the table %s in: create it first, with: create schema %s",
			t.Schema, t.Name, ident(t.Schema))
	case !*create:
		return []string{fmt.Sprintf("the role %s may not create tables in the schema %s: grant create on schema %s to %s",
			me, t.Schema, ident(t.Schema), ident(me))}, nil
	}
	return nil, nil
}

// unreadableColumns names the first column of the view's that the current role may not read.
func unreadableColumns(ctx context.Context, conn *pgx.Conn, t *table, m *mapping) (string, error) {
	names := []string{m.key.Name}
	for _, c := range m.columns {
		if c.source != nil {
			names = append(names, c.source.Name)
		}
	}
	var name string
	err := conn.QueryRow(ctx, `
		select name from pg_catalog.unnest($2::text[]) name
		where not pg_catalog.has_column_privilege($1::pg_catalog.oid, name, 'select') limit 1`, t.OID, names).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the rights on the columns of %s: %w", t.Display, err)
	}
	return name, nil
}

// explain turns what the server says while a script runs into a sentence, where the server's own is not one.
func explain(operation string, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", operation, err)
	}
	switch refused.Code {
	case "42501": // insufficient_privilege
		return fmt.Errorf("%s: the current role lacks a right, so nothing was changed; try it as the table's owner: %w",
			operation, err)
	case "2BP01": // dependent_objects_still_exist
		return fmt.Errorf("%s: something else depends on it, so nothing was changed (%s): %w", operation, refused.Detail, err)
	default:
		return fmt.Errorf("%s: nothing was changed: %w", operation, err)
	}
}
