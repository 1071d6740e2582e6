// Package export is an application that exports things for its users, a row of the table exports each.
package export

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Schema is the application's table.
const Schema = `create table exports (id bigint generated always as identity primary key, user_id text not null,
	status text not null default 'pending', progress integer not null default 0)`

// Run exports in steps, and says after each how far it is.
func Run(ctx context.Context, db *pgx.Conn, id int64) error {
	for progress := 50; progress <= 100; progress += 50 {
		// ... a part of the work ...
		status := "running"
		if progress == 100 {
			status = "completed"
		}
		if _, err := db.Exec(ctx, `update exports set status = $2, progress = $3 where id = $1`, id, status, progress); err != nil {
			return fmt.Errorf("export %d: %w", id, err)
		}
	}
	return nil
}
