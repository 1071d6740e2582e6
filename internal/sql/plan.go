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
	// SQL is the exact script, with its transaction; psql can run it, too. Empty means that nothing has to change.
	SQL string
	// Warnings are sentences about what works, but perhaps not as expected.
	Warnings []string
	// Schema is the version that is installed before SQL runs; 0 means that install has made nothing.
	Schema int
	// Unmended counts the warnings about differences from what was chosen that install cannot repair.
	Unmended int
	// Notes are sentences about how install maps the table, and what is in it.
	Notes []string
	// Kept are the Options.Columns of the last install that were not given again, as OURS=THEIRS.
	Kept []string

	// Last says that an uninstall removes the last feed.
	Last bool

	table       *table
	as          string   // the role that SQL sets for its transaction; "": none
	ownView     bool     // the feed has Options.View
	lockReaders bool     // it needs the table without readers, too
	rights      []string // what rights the current role lacks: warnings in a plan, an error when it is run
}

// PlanInstall returns what [Install] would run. It only reads, in a transaction of its own, so conn must not be in one. Its error is for the
// user of the command: a [UsageError] when the options make no sense, otherwise what is wrong with the table.
func PlanInstall(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	return withMissingRights(planReadOnly(ctx, conn, o, planInstall))
}

// withMissingRights makes the missing rights warnings, for a plan that is only shown.
func withMissingRights(plan *Plan, err error) (*Plan, error) {
	if err != nil {
		return nil, err
	}
	plan.Warnings = append(plan.Warnings, plan.rights...)
	return plan, nil
}

// planReadOnly plans in a read-only transaction of its own, because planners change the search_path.
func planReadOnly(ctx context.Context, conn *pgx.Conn, o Options, plan planner) (*Plan, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return inReadTransaction(ctx, conn, o.LockTimeout, func() (*Plan, error) { return plan(ctx, conn, o) })
}

// inReadTransaction runs f in a read-only transaction. To read a view's definition takes a lock on the view; lockTimeout bounds the wait for
// it, and 0 means no bound. When something that f reads was dropped after the transaction began, f runs again in a new one.
func inReadTransaction[T any](ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration, f func() (T, error)) (read T, err error) {
	if conn.PgConn().TxStatus() != 'I' {
		return read, errors.New("the connection is in a transaction: use one that is not, because this needs a transaction of its own")
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
	defer rollback(ctx, conn)
	return f()
}

// beginReading begins the transaction. Its settings make the server write names and types always in the same way. With repeatable read all
// statements see one state: otherwise a feed could be installed between two of them, and its triggers would seem to belong to nobody.
const beginReading = "begin isolation level repeatable read read only; set local quote_all_identifiers = off"

// rollback ends the transaction, also when ctx has ended.
func rollback(ctx context.Context, conn *pgx.Conn) {
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = conn.Exec(ctx, "rollback") // an error means that the connection is gone, and then the server rolls back
}
