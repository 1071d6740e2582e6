package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type exportArgs struct {
	UserID string `json:"user_id"`
}

func (exportArgs) Kind() string { return "export" }

type exportWorker struct {
	river.WorkerDefaults[exportArgs]
	orders chan order
}

// Work does what it is told until it is told to end.
func (w *exportWorker) Work(ctx context.Context, job *river.Job[exportArgs]) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-w.orders:
			switch o.command {
			case "progress":
				percent, text, _ := strings.Cut(o.argument, " ")
				_, err := river.ClientFromContext[pgx.Tx](ctx).JobUpdate(ctx, job.ID, &river.JobUpdateParams{Output: map[string]any{"progress": percent, "message": text}})
				o.done <- err
			case "output":
				o.done <- river.RecordOutput(ctx, map[string]any{"progress": o.argument})
			case "fail":
				o.done <- nil
				return errors.New("the disk is full")
			default:
				o.done <- nil
				return nil
			}
		}
	}
}

// NextRetry is late, so that retries come when they are asked for.
func (w *exportWorker) NextRetry(*river.Job[exportArgs]) time.Time { return time.Now().Add(time.Hour) }

type riverQueue struct {
	client *river.Client[pgx.Tx]
	orders chan order
}

func newRiver(ctx context.Context, pool *pgxpool.Pool) (*riverQueue, error) {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	q := &riverQueue{orders: make(chan order)}
	workers := river.NewWorkers()
	river.AddWorker(workers, &exportWorker{orders: q.orders})
	q.client, err = river.NewClient(driver, &river.Config{
		FetchPollInterval: 100 * time.Millisecond, FetchCooldown: 50 * time.Millisecond, Workers: workers, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1}},
	})
	return q, err
}

func (q *riverQueue) do(ctx context.Context, command, argument string) (string, error) {
	switch command {
	case "insert":
		user, retries, _ := strings.Cut(argument, " ")
		most, err := strconv.Atoi(retries)
		if err != nil {
			return "", err
		}
		inserted, err := q.client.Insert(ctx, exportArgs{UserID: user}, &river.InsertOpts{MaxAttempts: most + 1})
		if err != nil {
			return "", err
		}
		return strconv.FormatInt(inserted.Job.ID, 10), nil
	case "work":
		return "", q.client.Start(ctx)
	case "rest":
		return "", q.client.Stop(ctx)
	case "cancel", "retry", "delete":
		id, err := strconv.ParseInt(argument, 10, 64)
		if err != nil {
			return "", err
		}
		switch command {
		case "cancel":
			_, err = q.client.JobCancel(ctx, id)
		case "retry":
			_, err = q.client.JobRetry(ctx, id)
		case "delete":
			_, err = q.client.JobDelete(ctx, id)
		}
		return "", err
	case "progress", "output", "fail", "complete":
		return "", tell(q.orders, command, argument)
	}
	return "", fmt.Errorf("no such command")
}
