package sql

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Plan is what Install or Uninstall runs.
type Plan struct {
	// Table is the application's table, quoted and with its schema; empty when Uninstall found none.
	Table string
	// SQL is the exact script, transaction and all, as psql runs it too. Empty: nothing has to change.
	SQL string
	// Warnings are sentences about what works, but not as somebody might expect.
	Warnings []string
	// Schema is the version of what is installed before SQL runs; 0: nothing that install made.
	Schema int
	// Unmended counts the warnings of what is not as it was chosen, and what install cannot mend.
	Unmended int
	// Notes are sentences about what install sees in the table and makes of it.
	Notes []string
	// Kept are the Options.Columns of the install before that were not given again, as OURS=THEIRS.
	Kept []string

	table     *table
	own       bool     // the view is the operator's query
	exclusive bool     // it needs the table without readers, too
	rights    []string // that the current role lacks: warnings in a plan, an error when it is run
}

// PlanInstall decides what [Install] would run. It reads the catalog and nothing else, in a transaction of its own, so conn must not be in
// one. The error is for whoever typed the command: a [UsageError] when the options make no sense, else what is wrong with the table.
func PlanInstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	return planned(planApart(ctx, conn, o, planInstall))
}

// planned is a plan for whoever only wants to see it.
func planned(plan *Plan, err error) (*Plan, error) {
	if err != nil {
		return nil, err
	}
	plan.Warnings = append(plan.Warnings, plan.rights...)
	return plan, nil
}

// planApart plans in a read-only transaction, because planners change the search_path.
func planApart(ctx context.Context, conn *pgx.Conn, o Options, plan planner) (*Plan, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return reading(ctx, conn, o.LockTimeout, func() (*Plan, error) { return plan(ctx, conn, o) })
}

// reading runs f in a transaction that only reads. Even to read how a view is defined takes a lock on it, for which somebody may have to
// be waited; 0 is for as long as it takes. What f reads may have been dropped since the transaction began: then it begins again.
func reading[T any](ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration, f func() (T, error)) (read T, err error) {
	if conn.PgConn().TxStatus() != 'I' {
		return read, errors.New("the connection is in a transaction already")
	}
	for range 10 {
		read, err = readOnce(ctx, conn, lockTimeout, f)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "XX000" { // internal_error: could not open relation with OID
			break
		}
	}
	return read, err
}

func readOnce[T any](ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration, f func() (T, error)) (none T, err error) {
	err = execScript(ctx, conn, fmt.Sprintf("%s; set local lock_timeout = '%dms'", beginReading, lockTimeout.Milliseconds()))
	if err != nil {
		return none, fmt.Errorf("begin: %w", err)
	}
	defer abandon(ctx, conn)
	return f()
}

// beginReading makes the server write names and types always the same way. All statements see one state: between two of them another feed could
// be installed, whose triggers would then be there and nobody's.
const beginReading = "begin isolation level repeatable read read only; set local quote_all_identifiers = off"

// abandon ends the transaction, also when ctx has ended.
func abandon(ctx context.Context, conn *pgx.Conn) {
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = conn.Exec(ctx, "rollback") // an error means that the connection is gone, and then the server rolls back
}

// planInstall runs inside a transaction, whose search_path it empties once the table is found.
func planInstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	o.Feed = o.feed()
	t, err := adoptable(ctx, conn, o)
	if err != nil {
		return nil, err
	}
	var encoding string
	var twoPhase, schema bool
	var locks int
	err = conn.QueryRow(ctx, `select pg_catalog.current_setting('server_encoding'), pg_catalog.current_setting('max_prepared_transactions')::int > 0,
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
	err = errors.Join(there.newer(), there.moved(), there.conflict(t))
	if err != nil {
		return nil, err
	}
	all, kept := there.keepColumns(o.Columns, t)
	o = there.keepOthers(o)
	if t.OID == 0 && o.Feed != defaultFeed {
		o.report = there.reportName()
	}
	given := o
	o.Columns = all
	o, err = there.withView(given, o)
	if err != nil {
		return nil, err
	}
	m, err := mapped(ctx, conn, t, o, encoding)
	if o.View != "" {
		kept = nil
	}
	if err != nil && len(kept) > 0 {
		return nil, fmt.Errorf("%w; from the install before are --column %s", err, strings.Join(kept, ", --column "))
	}
	if err == nil {
		err = there.unlike(given.Columns, m)
	}
	if err != nil {
		return nil, err
	}
	if m.rings, err = loadRings(ctx, conn, t, m, o.Rings); err != nil {
		return nil, err
	}
	found, err := there.compare(ctx, conn, false)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Table: t.quoted(), Warnings: warnings(t, m, twoPhase && !o.NoTriggers, there.Kind == ""), Schema: there.version(), Kept: kept, table: t, own: m.own != nil}
	for _, f := range found {
		if f.Remedy != "" && f.Kind != "table" && (f.Kind != "row_security" || t.RowSecurity) {
			plan.Unmended++
			plan.Warnings = append(plan.Warnings, f.Text+"; "+f.Remedy)
		}
	}
	plan.rights, err = lackingRights(ctx, conn, o, t, m, there)
	if err != nil {
		return nil, err
	}
	if !m.owned() && !o.Public {
		const remedy = "name one with --column user_id=, user_email= or group_id=, or let every valid token see every row with --public"
		if there.Kind == "" && !there.naming.first() {
			return nil, fmt.Errorf("no column of %s says whose a row is, so that nobody would see any: %s (it has %s)", t.Display, remedy, t.names())
		}
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("no column of %s says whose a row is, so that nobody sees any: %s", t.Display, remedy))
	}
	if len(plan.rights) == 0 && !t.RowSecurity {
		s, err := seen(ctx, conn, t, m, o)
		if err != nil {
			return nil, err
		}
		plan.Notes, plan.Warnings = s.Notes, append(plan.Warnings, s.Warnings...)
	}
	if o.report != "" {
		plan.Notes = append(plan.Notes, fmt.Sprintf("report with: select auditstream.%s('KEY', 42, 'half of it', user_id => 'USER'); whoever does needs: grant usage on schema auditstream to ROLE; grant select, insert, update on %s to ROLE",
			o.report, t.quoted()))
	}
	if there.Buckets == 0 {
		there.Buckets = bucketsFor(locks)
	}
	plan.SQL, err = installScript(ctx, conn, o, t, m, there, found)
	return plan, err
}

// mapped maps the table's columns, or those of the operator's own view.
func mapped(ctx context.Context, conn *pgx.Conn, t *table, o Options, encoding string) (*mapping, error) {
	from, columns := t, o
	if o.View != "" {
		own, err := loadView(ctx, conn, o.View)
		if err != nil {
			return nil, err
		}
		from, columns.Columns = own, nil
	}
	lookups, err := loadLookups(ctx, conn, from, o.Lookups)
	if err != nil {
		return nil, err
	}
	m, err := mapColumns(from, columns, lookups, encoding)
	if err != nil || o.View == "" {
		return m, err
	}
	m.query = o.View
	return m, m.ownKey(t, o, from)
}

// adoptable finds the table, or describes the one that is going to be made.
func adoptable(ctx context.Context, conn *pgx.Conn, o Options) (*table, error) {
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

// installScript fills in install.sql; "" when nothing has to change.
func installScript(ctx context.Context, conn *pgx.Conn, o Options, t *table, m *mapping, there *installed, found []Finding) (string, error) {
	owners := m.owners()
	vars := map[string]string{
		"table": t.quoted(), "key": ident(m.key.Name), "objects": "true", "triggers": strconv.FormatBool(!o.NoTriggers),
		"class": strconv.Itoa(lockClass), "buckets": strconv.Itoa(there.Buckets), "mask": strconv.Itoa(there.Buckets - 1), "look": strconv.FormatBool(!o.NotifyAlways),
		"owners": strings.Join(owners, ", "), "has_owners": strconv.FormatBool(len(owners) > 0),
	}
	maps.Copy(vars, there.vars(nil))
	vars["more"], vars["report"], vars["reports"] = "", o.report, strconv.FormatBool(o.report != "")
	for _, name := range ours {
		vars[name] = "null::" + viewTypes[name]
	}
	for _, c := range m.columns {
		if vars[c.name] = c.value(); !slices.Contains(ours, c.name) {
			vars["more"] += fmt.Sprintf(", %s as %s", c.value(), c.name)
		}
	}
	m.keyVars(vars, there.naming, t)
	rings := m.rings
	if o.NoTriggers {
		rings = nil
	}
	vars["rings"] = strings.TrimSuffix(ringTriggers(rings, m, there.naming, vars), "\n")
	sum := md5.Sum([]byte(render(installSQL, vars))) // of what was asked for
	asked := hex.EncodeToString(sum[:])
	maps.Copy(vars, there.vars(othersTriggers(there.all, there.naming)))
	current := versionOf(there.Comment, there.Watch, there.Prepare) > 0 && there.Feeds == !o.NoTriggers && there.chosen != nil && there.chosen.Options.Asked == asked && !there.Old &&
		there.chosen.Made.Server == there.Made.Server && !slices.ContainsFunc(found, func(f Finding) bool { return f.Remedy == "" && f.Kind != "rights" }) &&
		(slices.Contains(there.roles(), o.Role) || o.Role == "" || there.Made.Objects[choicesTable].Owner == there.Made.Installer)
	var own []string
	if slices.ContainsFunc(found, func(f Finding) bool { return f.Kind == "owner" || f.Kind == "row_security" && !t.RowSecurity }) {
		own, current = there.takeOver(), false
	}

	dropView := !current && there.Kind != "" && (!there.replaceable(m) || there.chosen != nil && !there.trusts(there.Made.Objects[there.viewObject()]))
	roles, grants, err := grantsFor(ctx, conn, o, there, dropView, !current)
	if err != nil {
		return "", err
	}
	vars["options"] = choose(o, roles, m, asked)
	if current && !slices.Equal(roles, there.chosen.Options.Roles) {
		grants = append(grants, fmt.Sprintf("update auditstream.choices set options = %s where feed = %s;", literal(vars["options"]), literal(o.Feed)))
	}
	if current && len(own) > 0 {
		grants = append(own, grants...)
	}
	if current && len(grants) == 0 {
		return "", nil
	}
	for name, yes := range map[string]bool{
		"objects": !current, "new_schema": !there.Schema, "drop_view": dropView, "new_feeds": !there.Feeds, "old_schema": there.Old,
		"drop_owner": len(owners) == 0 && there.Feeds, "last": !slices.ContainsFunc(there.all, func(c *choices) bool { return c.Feed != o.Feed && c.Options.Triggers }),
		"drop_triggers": o.NoTriggers && (there.Feeds || len(there.Triggers) > 0),
	} {
		vars[name] = strconv.FormatBool(yes)
	}
	vars["take_over"] = strings.Join(append(own, there.detach(t, rings)...), "\n")
	vars["lock_timeout"], vars["grants"] = fmt.Sprintf("%dms", o.LockTimeout.Milliseconds()), strings.Join(grants, "\n")
	for _, t := range there.Triggers {
		if t.Enabled == "A" { // an operator has set it, and "create or replace trigger" would reset it
			vars["keep_always"] += fmt.Sprintf("alter table only %s enable always trigger %s;\n", t.table().quoted(), ident(t.Trigger))
		}
	}
	vars["keep_always"] = strings.TrimSuffix(vars["keep_always"], "\n")
	script := render(installSQL, vars)
	if t.OID == 0 {
		created := auditsSQL
		if o.Feed != defaultFeed {
			created = feedSQL
		}
		script = strings.Replace(script, searchPath, searchPath+"\n"+render(created, vars), 1)
	}
	return script, nil
}

func warnings(t *table, m *mapping, twoPhase, first bool) (warnings []string) {
	warn := func(is bool, format string, args ...any) {
		if is {
			warnings = append(warnings, fmt.Sprintf(format, args...))
		}
	}
	warn(!m.key.Indexed, "no index of %s begins with %s: every read scans the whole table; create index concurrently on %s (%s)",
		t.Display, m.key.Name, t.quoted(), ident(m.key.Name))
	warn(!m.key.Unique && t.Kind != "p", "nothing makes %s unique in %s: of several rows with one id viewers see any", m.key.Name, t.Display)
	warn(t.Inherited, "tables inherit from %s: their rows are shown, but their changes ring nothing and are found by the safety net", t.Display)
	warn(t.RowSecurity && first, "row level security of %s applies to the role that installs: rows it cannot see are hidden from every viewer", t.Display)
	warn(twoPhase, "this server allows two-phase commit, and PostgreSQL refuses to prepare a transaction that notifies: where the application uses"+
		" it for %s, install without triggers", t.Display)
	return warnings
}
