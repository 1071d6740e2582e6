package store_test

import (
	"context"
	"slices"

	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
)

const execMode = pgx.QueryExecModeExec

// execModeDB sends queries as serve's pool does: prepared only where the store asks for it.
type execModeDB struct{ store.Querier }

func (m execModeDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(args) > 0 {
		if _, ok := args[0].(pgx.QueryExecMode); ok {
			return m.Querier.Query(ctx, sql, args...)
		}
	}
	return m.Querier.Query(ctx, sql, slices.Insert(slices.Clone(args), 0, any(execMode))...)
}
