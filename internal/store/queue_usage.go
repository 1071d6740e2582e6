package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// QueueUsage returns how full PostgreSQL's notification queue is, from 0 to 1. All databases of a server share the queue. At 1, every
// transaction that notifies fails at commit. The query is cheap: PostgreSQL answers from memory.
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
