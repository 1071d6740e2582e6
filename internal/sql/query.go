package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// collect returns all rows of a query. Its error says what could not be read.
func collect[T any](ctx context.Context, conn *pgx.Conn, what string, row pgx.RowToFunc[T], query string, args ...any) ([]T, error) {
	rows, _ := conn.Query(ctx, query, args...) // CollectRows returns its error
	all, err := pgx.CollectRows(rows, row)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return all, nil
}

// texts returns all rows of a query with one column.
func texts(ctx context.Context, conn *pgx.Conn, what, query string, args ...any) ([]string, error) {
	return collect(ctx, conn, what, pgx.RowTo[string], query, args...)
}

// withoutPolicies is searchPath for an install: to read a table with policies of somebody else is an error, so that the policies do not run.
const withoutPolicies = searchPath + "set local row_security = off;\n"

// emptySearchPath makes the server write names with their schema until the transaction ends.
func emptySearchPath(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, searchPath)
	if err != nil {
		return fmt.Errorf("set search_path: %w", err)
	}
	return nil
}
