package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Status is what doctor reports about an installation.
type Status struct {
	// Table is the application's table, quoted and with its schema: the one with the triggers, or else the only one that the view reads, or
	// empty.
	Table string
	// View is nil when auditstream.progress exists, is readable, and has the columns that serve needs. Otherwise it says what is wrong.
	View error
	// Triggers are those of install.sql, including missing ones; others that call our function; and partitions' copies that are not enabled.
	Triggers []Trigger
	// Drift is what has changed since the install.
	Drift Drift
	// Index says that a read by audit_id scans a whole table. It is nil when that is not so, when View is not nil, and for a superuser.
	Index error
	// Super says that the current role is a superuser. Then nothing is read or planned, because a table's owner could make a view or a policy
	// run code with the reader's rights.
	Super bool
}

// A Trigger is one trigger of a [Status]. Enabled is "enabled" (ORIGIN or ALWAYS), "disabled", "replica only" or "missing".
type Trigger struct {
	Name    string
	Table   string // quoted and with its schema
	Enabled string
}

// Inspect reports about what is installed or handwritten. It needs only the right to SELECT from the view, and changes nothing. conn must not
// be in a transaction. The error is about the connection; the Status says what is wrong with the installation.
func Inspect(ctx context.Context, conn *pgx.Conn) (Status, error) {
	s, err := inReadTransaction(ctx, conn, 0, func() (Status, error) { return inspect(ctx, conn) })
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

func describeTriggers(i *installation) []Trigger {
	words := map[string]string{"O": "enabled", "A": "enabled", "D": "disabled", "R": "replica only"}
	var triggers []Trigger
	table := ""
	if len(i.Reads) == 1 {
		table = i.Reads[0].table().quoted()
	}
	there := map[string]bool{i.trigger("owner"): true} // not every table has it
	if v := i.version(); 0 < v && v < SchemaVersion {
		there[i.trigger("rekey")] = true // versions 1 to 4 have another trigger for it
	}
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

// checkView returns in wrong what is wrong with the view, and in err an error of the connection.
func checkView(ctx context.Context, conn *pgx.Conn, i *installation) (wrong, err error) {
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
	for _, name := range append([]string{"audit_id"}, viewColumns...) {
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

// checkIndex returns in wrong which table the server's read scans.
func checkIndex(ctx context.Context, conn *pgx.Conn) (wrong, err error) {
	scan, err := tableScanned(ctx, conn, `select p.* from pg_catalog.unnest('{1}'::bigint[]) k join auditstream.progress p on p.audit_id = k`)
	if err != nil {
		return nil, fmt.Errorf("explain a read of auditstream.progress: %w", err)
	}
	if scan.Table != "" {
		wrong = fmt.Errorf("every read by audit_id scans the whole of %s: create %s", scan.Table, scan.Index())
	}
	return wrong, nil
}
