package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/vgarvardt/gue/v5"
	"github.com/vgarvardt/gue/v5/adapter/pgxv5"
)

// gueQueue has jobs whose rows are locked while they run, in a transaction that ends with the job. So progress is in a table of its own,
// written on another connection.
type gueQueue struct {
	pool   *pgxpool.Pool
	client *gue.Client
	orders chan order
	rest   context.CancelFunc
	rested chan struct{}
}

// gueSchema is what its users are told to make: gue has no migrations that a program could run.
const gueSchema = `create table if not exists gue_jobs (
	job_id text not null primary key, priority smallint not null, run_at timestamptz not null, job_type text not null, args bytea not null,
	error_count integer not null default 0, last_error text, queue text not null, created_at timestamptz not null, updated_at timestamptz not null)`

func newGue(ctx context.Context, pool *pgxpool.Pool) (*gueQueue, error) {
	if _, err := pool.Exec(ctx, gueSchema); err != nil {
		return nil, err
	}
	client, err := gue.NewClient(pgxv5.NewConnPool(pool), gue.WithClientBackoff(gue.NewConstantBackoff(time.Hour)))
	return &gueQueue{pool: pool, client: client, orders: make(chan order)}, err
}

func (q *gueQueue) report(ctx context.Context, id, status string, percent string) error {
	_, err := q.pool.Exec(ctx, "select auditstream.report($1::text, nullif($3, '')::float8, status => $2)", id, status, percent)
	return err
}

// export does what it is told until it is told to end.
func (q *gueQueue) export(ctx context.Context, job *gue.Job) error {
	id := job.ID.String()
	if err := q.report(ctx, id, "running", ""); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-q.orders:
			switch o.command {
			case "progress":
				o.done <- q.report(ctx, id, "running", o.argument)
			case "fail":
				o.done <- q.report(ctx, id, "pending", "")
				return errors.New("the disk is full")
			default:
				o.done <- q.report(ctx, id, "completed", "100")
				return nil
			}
		}
	}
}

func (q *gueQueue) do(ctx context.Context, command, argument string) (string, error) {
	switch command {
	case "insert":
		user, _, _ := strings.Cut(argument, " ")
		tx, err := q.pool.Begin(ctx)
		if err != nil {
			return "", err
		}
		defer tx.Rollback(ctx)
		job := &gue.Job{Type: "export", Args: []byte("{}")}
		if err := q.client.EnqueueTx(ctx, job, pgxv5.NewTx(tx)); err != nil {
			return "", err
		}
		_, err = tx.Exec(ctx, "select auditstream.report($1::text, 0, status => 'pending', user_id => $2)", job.ID.String(), user)
		if err != nil {
			return "", err
		}
		return job.ID.String(), tx.Commit(ctx)
	case "work":
		worker, err := gue.NewWorker(q.client, gue.WorkMap{"export": q.export}, gue.WithWorkerPollInterval(50*time.Millisecond))
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithCancel(ctx)
		q.rest, q.rested = cancel, make(chan struct{})
		go func() { defer close(q.rested); _ = worker.Run(ctx) }()
		return "", nil
	case "rest":
		q.rest()
		<-q.rested
		return "", nil
	case "retry": // which is late else
		_, err := q.pool.Exec(ctx, "update gue_jobs set run_at = now() where job_id = $1", argument)
		return "", err
	case "progress", "fail", "complete":
		return "", tell(q.orders, command, argument)
	}
	return "", fmt.Errorf("no such command")
}
