package sql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Status is what doctor reports about a database.
type Status struct {
	// Table is the application's, quoted and with its schema: the one with the triggers, else the only one that the view reads, else empty.
	Table string
	// View is nil when auditstream.progress exists, is readable and has the contract's columns.
	View error
	// Triggers are those of install.sql, also when they are missing, others that call the function, and those on partitions that are not enabled.
	Triggers []Trigger
	// Drift is what has changed since the install.
	Drift Drift
	// Index is nil, or says that the server's reads by audit_id scan a whole table. It is nil, too, when View is not, and for a superuser.
	Index error
	// Super says that the role is a superuser. Nothing is read or planned then: whoever owns a table could have its view, or a policy, run code
	// as whoever reads.
	Super bool
}

// A Trigger of [Status]. Enabled is "enabled" (ORIGIN or ALWAYS), "disabled", "replica only" or "missing".
type Trigger struct {
	Name    string
	Table   string // quoted and with its schema
	Enabled string
}

// Inspect looks at what is installed, or was written by hand. It needs no right but SELECT on the view and changes nothing. conn must not
// be in a transaction. The error is about the connection: what is wrong with the installation is in the Status.
func Inspect(ctx context.Context, conn *pgx.Conn) (Status, error) {
	s, err := reading(ctx, conn, 0, func() (Status, error) { return inspect(ctx, conn) })
	if err != nil {
		return Status{}, fmt.Errorf("inspect: %w", err)
	}
	return s, nil
}

func inspect(ctx context.Context, conn *pgx.Conn) (Status, error) {
	err := emptySearchPath(ctx, conn)
	if err != nil {
		return Status{}, err
	}
	there, err := loadInstalled(ctx, conn, defaultFeed)
	if err != nil {
		return Status{}, err
	}
	s := Status{Triggers: describeTriggers(there)}
	s.Table = s.Triggers[0].Table
	s.Drift, err = there.drift(ctx, conn)
	if err != nil {
		return s, err
	}
	err = conn.QueryRow(ctx, "select rolsuper from pg_catalog.pg_roles where rolname operator(pg_catalog.=) current_user").Scan(&s.Super)
	if err != nil {
		return s, err
	}
	s.View, err = checkView(ctx, conn, there)
	if s.View != nil || s.Super || err != nil {
		return s, err
	}
	s.Index, err = checkIndex(ctx, conn)
	if refused := new(pgconn.PgError); errors.As(err, &refused) { // a view is read with the rights of its owner, who may have lost them
		s.View, err = fmt.Errorf("auditstream.progress cannot be read: %w", err), nil
	}
	return s, err
}

func describeTriggers(i *installed) []Trigger {
	words := map[string]string{"O": "enabled", "A": "enabled", "D": "disabled", "R": "replica only"}
	var triggers []Trigger
	table := ""
	if len(i.Reads) == 1 {
		table = i.Reads[0].table().quoted()
	}
	there := map[string]bool{i.trigger("owner"): true} // which not every table has
	for _, t := range i.Triggers {
		if !t.Copy && !i.rings(t.Trigger) {
			table, there[t.Trigger] = t.table().quoted(), true
		}
		if !t.Copy || words[t.Enabled] != "enabled" {
			triggers = append(triggers, Trigger{Name: t.Trigger, Table: t.table().quoted(), Enabled: words[t.Enabled]})
		}
	}
	for _, name := range i.triggers() {
		if !there[name] {
			triggers = append(triggers, Trigger{Name: name, Table: table, Enabled: "missing"})
		}
	}
	return triggers
}

// checkView returns what is wrong with the view, and apart from that an error of the connection.
func checkView(ctx context.Context, conn *pgx.Conn, i *installed) (wrong, err error) {
	if i.Kind == "" {
		return errors.New("there is no view auditstream.progress: run auditstream install --table YOUR_TABLE"), nil
	}
	unable, err := texts(ctx, conn, "the rights on auditstream.progress", `
		select current_user::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'auditstream'
			and c.relname = 'progress' and not (pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select'))`)
	if err != nil {
		return nil, err
	}
	for _, me := range unable {
		return fmt.Errorf("the role %s may not read auditstream.progress: run auditstream install --role %[1]s", me), nil
	}
	var problems []string
	for _, name := range append([]string{"audit_id"}, ours...) {
		at := slices.IndexFunc(i.Columns, func(c viewColumn) bool { return c.Name == name })
		switch {
		case at < 0:
			problems = append(problems, fmt.Sprintf("the column %s (%s) is missing", name, viewTypes[name]))
		case i.Columns[at].Type != viewTypes[name]:
			problems = append(problems, fmt.Sprintf("the column %s is %s instead of %s", name, i.Columns[at].Type, viewTypes[name]))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("auditstream.progress is not what serve reads: %s", strings.Join(problems, "; ")), nil
	}
	return nil, nil
}

// checkIndex says what is wrong where the server's read scans a table.
func checkIndex(ctx context.Context, conn *pgx.Conn) (wrong, err error) {
	table, err := scanned(ctx, conn, `select p.* from pg_catalog.unnest('{1}'::bigint[]) k join auditstream.progress p on p.audit_id = k`)
	if err != nil {
		return nil, fmt.Errorf("explain a read of auditstream.progress: %w", err)
	}
	if table != "" {
		wrong = fmt.Errorf("every read by audit_id scans the whole of %s: create an index on its key", table)
	}
	return wrong, nil
}

// scanned is the table that a query reads as a whole; "": none. It asks the planner with everything priced away that would hide a missing
// index: on a small table a scan is cheaper than any index.
func scanned(ctx context.Context, conn *pgx.Conn, query string) (table string, err error) {
	_, err = conn.Exec(ctx, `select pg_catalog.set_config(name, 'off', true)
		from pg_catalog.unnest('{enable_seqscan, enable_hashjoin, enable_mergejoin, jit}'::text[]) name`)
	if err != nil {
		return "", fmt.Errorf("set the planner's options: %w", err)
	}
	rows, _ := conn.Query(ctx, "explain (costs off) "+query)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", err
	}
	for n, line := range plan {
		scan := scans.FindStringSubmatch(line) // an index can be read from one end to the other, too
		if scan != nil && (scan[1] == "Seq" || n+1 == len(plan) || !strings.Contains(plan[n+1], "Index Cond")) {
			return scan[2], nil
		}
	}
	return "", nil
}

var scans = regexp.MustCompile(`(Seq|Index|Index Only) Scan.* on ("(?:[^"]|"")+"|\S+)`)
