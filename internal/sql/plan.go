package sql

import (
	"context"
	"errors"
	"fmt"
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

	// Last says of an uninstall that nothing is left after it.
	Last bool

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
		refused, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || refused.Code != "XX000" && refused.Code != "42P01" { // internal_error: could not open relation with OID; undefined_table
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
