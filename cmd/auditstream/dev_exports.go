package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// exportsFeed is a second feed, of a table as other applications have it: its keys are uuids, its progress is a ratio, and its statuses have
// other names.
const exportsFeed = "exports"

const exportsTable = `create table if not exists public.exports (
	id uuid primary key default gen_random_uuid(),
	owner text not null,
	file text not null,
	state text not null default 'queued',
	processed int not null default 0,
	total int not null,
	created_at timestamptz not null default now())`

// installExports makes the table and adopts it.
func installExports(ctx context.Context, owner *pgx.Conn, logger *slog.Logger) error {
	for _, statement := range []string{exportsTable, "grant select, insert, update, delete on public.exports to " + devAppRole} {
		if _, err := owner.Exec(ctx, statement); err != nil {
			return fmt.Errorf("make the table exports: %w", err)
		}
	}
	words, err := sql.ParseWords([]string{"queued=pending", "processing=running", "done=completed"})
	if err != nil {
		return err
	}
	_, err = sql.Install(ctx, owner, sql.Options{
		Feed: exportsFeed, Table: "public.exports", Role: devServeRole, Logger: logger, Words: words, Ends: []string{"cancelled"}, Fields: []string{"file", "processed", "total"},
		Columns: map[string]string{"status": "state", "progress": "processed/total", "user_id": "owner"},
	})
	return err
}

// exporter makes one export after the other, always of the same file.
type exporter struct {
	file    string
	total   int
	pace    time.Duration // between two updates, plus or minus a half
	rest    time.Duration // between two exports
	cancels bool          // each export is cancelled half-way
}

var devExporters = []exporter{
	{file: "invoices.csv", total: 1200, pace: 500 * time.Millisecond, rest: 5 * time.Second},
	{file: "photos.zip", total: 90, pace: 900 * time.Millisecond, rest: 8 * time.Second, cancels: true},
}

const exportSteps = 20

// export makes exports until ctx is done, and returns ctx's error.
func (s *simulation) export(ctx context.Context, e exporter) error {
	for {
		var id string
		err := s.persist(ctx, func(ctx context.Context) error {
			return s.db.QueryRow(ctx, `
				with ended as (
					update exports set state = 'cancelled' where owner = $1 and file = $2 and state in ('queued', 'processing')
				), deleted as (
					delete from exports where id in (
						select id from exports where owner = $1 and file = $2 and state in ('done', 'cancelled') order by created_at desc offset $4)
				)
				insert into exports (owner, file, total) values ($1, $2, $3) returning id::text`, devUser, e.file, e.total, keptAudits-1).Scan(&id)
		})
		if err != nil {
			return err
		}
		for step := 1; step <= exportSteps; step++ {
			if err := pause(ctx, e.pace/2+rand.N(e.pace)); err != nil {
				return err
			}
			state := "processing"
			switch {
			case step == exportSteps:
				state = "done"
			case e.cancels && step == exportSteps/2:
				state = "cancelled"
			}
			over := false
			err := s.persist(ctx, func(ctx context.Context) error {
				tag, err := s.db.Exec(ctx, `update exports set state = $2, processed = total * $3 / $4 where id = $1::uuid and state in ('queued', 'processing')`, id, state, step, exportSteps)
				over = tag.RowsAffected() == 0 // somebody else has ended it
				return err
			})
			if err != nil {
				return err
			}
			if over || state == "cancelled" {
				break
			}
		}
		if err := pause(ctx, e.rest); err != nil {
			return err
		}
	}
}
