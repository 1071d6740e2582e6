package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// QueueUsage returns how full PostgreSQL's queue of notifications is, from 0 to 1. It is one for the whole server, and at 1
// every transaction that notifies fails at its commit. PostgreSQL answers from memory.
func (s *Store) QueueUsage(ctx context.Context) (float64, error) {
	rows, err := s.db.Query(ctx, "select pg_catalog.pg_notification_queue_usage()")
	if err != nil {
		return 0, fmt.Errorf("read the notification queue's usage: %w", err)
	}
	usage, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[float64])
	if err != nil {
		return 0, fmt.Errorf("read the notification queue's usage: %w", err)
	}
	return usage, nil
}
