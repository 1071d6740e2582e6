package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// collect returns all rows of a query. It says what was to be read when that fails.
func collect[T any](ctx context.Context, conn *pgx.Conn, what string, row pgx.RowToFunc[T], query string, args ...any) ([]T, error) {
	rows, _ := conn.Query(ctx, query, args...) // the rows have its error
	all, err := pgx.CollectRows(rows, row)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return all, nil
}

// texts returns the only column of all rows of a query.
func texts(ctx context.Context, conn *pgx.Conn, what, query string, args ...any) ([]string, error) {
	return collect(ctx, conn, what, pgx.RowTo[string], query, args...)
}

// withoutPolicies is searchPath for whoever installs: a table with policies of somebody else's is an error, and they do not run.
const withoutPolicies = searchPath + "set local row_security = off;\n"

// emptySearchPath makes the server write names with their schema. It is for the rest of the transaction.
func emptySearchPath(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, searchPath)
	if err != nil {
		return fmt.Errorf("set search_path: %w", err)
	}
	return nil
}
