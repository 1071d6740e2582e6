package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// planInstall plans inside a transaction. It empties the transaction's search_path after it has found the table.
func planInstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	o.Feed = o.feed()
	t, err := tableToAdopt(ctx, conn, o)
	if err != nil {
		return nil, err
	}
	return planAsOwner(ctx, conn, o, t)
}

// planTable plans as the current role.
func planTable(ctx context.Context, conn *pgx.Conn, o Options, t *table) (*Plan, error) {
	var encoding string
	var twoPhase, schema bool
	var locks int
	err := conn.QueryRow(ctx, `select pg_catalog.current_setting('server_encoding'), pg_catalog.current_setting('max_prepared_transactions')::int > 0,
		pg_catalog.current_setting('max_locks_per_transaction')::int * (pg_catalog.current_setting('max_connections')::int
			+ pg_catalog.current_setting('max_prepared_transactions')::int), exists (select from pg_catalog.pg_namespace where nspname = $1)`, t.Schema).
		Scan(&encoding, &twoPhase, &locks, &schema)
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	if !schema {
		return nil, fmt.Errorf("there is no schema %s to create the table %s in: create it first, with: create schema %s", t.Schema, t.Name, ident(t.Schema))
	}
	there, err := loadInstalled(ctx, conn, o.Feed)
	if err != nil {
		return nil, err
	}
	err = errors.Join(there.checkVersion(), there.checkSchemaName(), there.checkConflict(t))
	if err != nil {
		return nil, err
	}
	o.needOwner = there.Kind == "" && !there.naming.first()
	o, m, kept, err := there.mapWithEarlier(ctx, conn, t, o, encoding)
	if err != nil {
		return nil, err
	}
	found, err := there.compare(ctx, conn, false)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Table: t.quoted(), Warnings: warnings(t, m, twoPhase && !o.NoTriggers, there.Kind == ""), Schema: there.version(), Kept: kept, table: t, ownView: m.own != nil}
	plan.rights, err = missingRights(ctx, conn, o, t, m, there)
	if err == nil && len(plan.rights) == 0 {
		err = lockNames(ctx, conn, m.tables(t)...)
	}
	if err == nil {
		err = plan.addFindings(ctx, conn, o, t, m, there, found)
	}
	if err != nil {
		return nil, err
	}
	plan.noteLeftOut(there.leftOut(o))
	if there.Buckets == 0 {
		there.Buckets = bucketsFor(locks)
	}
	plan.SQL, err = installScript(ctx, conn, o, t, m, there, found)
	return plan, err
}

// mapWithEarlier maps the columns by the given options and, where they say nothing, by those of the last install. It returns the completed
// options, and in kept the --column values that it took from the last install.
func (i *installation) mapWithEarlier(ctx context.Context, conn *pgx.Conn, t *table, given Options, encoding string) (o Options, m *mapping, kept []string, err error) {
	if o, err = i.keepOptions(given); err != nil {
		return o, nil, nil, err
	}
	if t.OID == 0 && o.Feed != defaultFeed {
		o.report = i.reportName()
	}
	o.Columns, kept = i.keepColumns(given.Columns, t)
	if o, err = i.withView(given, o); err != nil {
		return o, nil, nil, err
	}
	if o.Deleted != "" && o.Deleted != "completed" && o.Deleted != "failed" && !slices.Contains(o.Ends, o.Deleted) {
		return o, nil, nil, usagef("--deleted %s: a deleted row has ended; give completed, failed, or --ends %[1]s as well", o.Deleted)
	}
	m, err = mapTable(ctx, conn, t, o, encoding)
	if o.View != "" {
		kept = nil
	}
	if err != nil && len(kept) > 0 {
		err = fmt.Errorf("%w; from the last install are --column %s", err, strings.Join(kept, ", --column "))
	}
	if err == nil {
		err = i.checkColumnChange(given.Columns, m)
	}
	if err == nil {
		m.rings, err = loadRings(ctx, conn, t, m, o.Rings)
	}
	return o, m, kept, err
}

// addFindings adds warnings about what install cannot repair and about owners, and notes about what is in the table.
func (p *Plan) addFindings(ctx context.Context, conn *pgx.Conn, o Options, t *table, m *mapping, there *installation, found []Finding) error {
	for _, f := range found {
		if f.Remedy != "" && f.Kind != "table" && (f.Kind != "row_security" || t.RowSecurity) {
			p.Unmended++
			p.Warnings = append(p.Warnings, f.Text+"; "+f.Remedy)
		}
	}
	if !m.hasOwner() && !o.Public {
		p.Warnings = append(p.Warnings, fmt.Sprintf("no column of %s says whose a row is, so that nobody sees any: %s", t.Display, ownerRemedy))
	}
	if others := there.rolesOfOthers(); o.Role == "" && len(there.roles()) == 0 && len(others) > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("no role may read this feed, and %s may read another: if serve connects as that role, give --role %s", some(others), ShellQuote(others[0])))
	}
	s, err := inspectTable(ctx, conn, t, m, o, len(p.rights) == 0 && !t.RowSecurity)
	if err != nil {
		return err
	}
	p.Notes = s.Notes
	for _, w := range s.Warnings {
		p.Warnings = append(p.Warnings, w.Text)
	}
	if o.report != "" {
		p.Notes = append(p.Notes, fmt.Sprintf("report with: select auditstream.%s('KEY', 42, 'half of it', user_id => 'USER'); whoever does needs: grant usage on schema auditstream to ROLE; grant select, insert, update on %s to ROLE",
			o.report, t.quoted()))
	}
	return nil
}

// mapTable maps the columns of the table, or of the operator's own view.
func mapTable(ctx context.Context, conn *pgx.Conn, t *table, o Options, encoding string) (*mapping, error) {
	from, columns := t, o
	if o.View != "" {
		own, err := loadView(ctx, conn, o.View)
		if err != nil {
			return nil, err
		}
		from, columns.Columns = own, nil
	}
	var refused refusals
	lookups, err := loadLookups(ctx, conn, from, o.Lookups)
	refused.add(err)
	m, err := mapColumns(from, columns, lookups, encoding)
	if refused.add(err); len(refused) > 0 || o.View == "" {
		return m, refused.err()
	}
	m.query = o.View
	return m, m.useOwnView(t, o, from)
}

// tableToAdopt finds the table, or describes the one that the script will make.
func tableToAdopt(ctx context.Context, conn *pgx.Conn, o Options) (*table, error) {
	oid, schema, name, err := findTable(ctx, conn, o.Table)
	if err != nil {
		return nil, err
	}
	err = execScript(ctx, conn, withoutPolicies)
	if err != nil {
		return nil, fmt.Errorf("set search_path: %w", err)
	}
	switch {
	case oid != 0:
		return loadTable(ctx, conn, oid)
	case !o.Create:
		return nil, notFound(ctx, conn, o.Table)
	case name == "":
		return nil, usagef(`%s is not the name of a table; write it as in SQL: audits, public.audits, "My Schema"."Audit Log"`, o.Table)
	}
	return createdTable(schema, name, o.Feed), nil
}

// warnings returns what operators should know about the table. first says that nothing is installed yet.
func warnings(t *table, m *mapping, twoPhase, first bool) (warnings []string) {
	warn := func(is bool, format string, args ...any) {
		if is {
			warnings = append(warnings, fmt.Sprintf(format, args...))
		}
	}
	shown := func(columns []string) bool {
		return m.hidden != nil && !m.hidden.Domain && slices.Contains(columns, m.hidden.Name)
	}
	warn(!m.key.Indexed && !shown(m.key.IndexedOf), "no index of %s begins with %s: every read scans the whole table; create index concurrently on %s (%s)",
		t.Display, m.key.Name, t.quoted(), ident(m.key.Name))
	warn(!m.key.Unique && !shown(m.key.UniqueOf), "nothing makes %s unique in %s: of several rows with one id viewers see any", m.key.Name, t.Display)
	warn(t.Inherited, "tables inherit from %s: their rows are shown, but their changes notify nobody and are found by the safety net", t.Display)
	warn(t.RowSecurity && first, "row level security of %s applies to the role that installs: rows it cannot see are hidden from every viewer", t.Display)
	warn(twoPhase, "this server allows two-phase commit, and PostgreSQL refuses to prepare a transaction that notifies: where the application uses"+
		" it for %s, install without triggers", t.Display)
	return warnings
}
