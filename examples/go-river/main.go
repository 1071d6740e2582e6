// Command go-river is an application with River's job queue, and a bar for each of its jobs.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"auditstream"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sync/errgroup"
)

//go:embed page.html
var page []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	if os.Getenv("DATABASE_URL") == "" {
		return errors.New("DATABASE_URL is not set; with a private PostgreSQL: auditstream dev ./start")
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	queue, err := newQueue(ctx, pool)
	if err != nil {
		return err
	}
	if err := pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return adopt(ctx, c.Conn()) }); err != nil {
		return err
	}
	as, err := auditstream.New(pool, auditstream.Options{Viewer: viewer})
	if err != nil {
		return err
	}

	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	routes.HandleFunc("POST /exports", func(w http.ResponseWriter, r *http.Request) { begin(w, r, queue) })
	routes.Handle("/api/v1/", as)
	address := "127.0.0.1:" + port()
	srv := &http.Server{Addr: address, Handler: routes, ReadHeaderTimeout: 5 * time.Second}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return as.Run(ctx) })
	group.Go(func() error { return queue.Start(ctx) })
	group.Go(func() error { fmt.Printf("\nOpen http://%s/\n", address); return srv.ListenAndServe() })
	group.Go(func() error { <-ctx.Done(); return srv.Shutdown(context.WithoutCancel(ctx)) })
	if err := group.Wait(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-queue.Stopped()
	return nil
}

// adopt makes River's table the feed jobs, and changes nothing where that was done.
func adopt(ctx context.Context, conn *pgx.Conn) error {
	_, err := auditstream.Install(ctx, conn, auditstream.Table{
		Name: "river_job", Feed: "jobs",
		Columns: map[string]string{
			"status": "state", "progress": "metadata.output.progress", "message": "metadata.output.message", "user_id": "args.user_id",
		},
		Status: map[string]string{"available": "pending", "retryable": "pending", "discarded": "failed", "cancelled": "failed"},
		Fields: []string{"attempt"},
	})
	return err
}

// viewer is who asks: in an application of yours, whoever is logged in.
func viewer(*http.Request) (auditstream.Viewer, error) {
	return auditstream.Viewer{UserID: "user-1"}, nil
}

func port() string {
	if p := os.Getenv("PORT"); p != "" {
		return p
	}
	return "3000"
}

// exportArgs say whose export it is, which is all that auditstream must know of a job.
type exportArgs struct {
	UserID string `json:"user_id"`
}

func (exportArgs) Kind() string { return "export" }

type exporter struct {
	river.WorkerDefaults[exportArgs]
}

// Work reports its progress as the job's output, as River has it.
func (exporter) Work(ctx context.Context, job *river.Job[exportArgs]) error {
	for percent := 10; percent <= 90; percent += 10 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
		output := map[string]any{"progress": percent, "message": fmt.Sprintf("Page %d of 100", percent)}
		if _, err := river.ClientFromContext[pgx.Tx](ctx).JobUpdate(ctx, job.ID, &river.JobUpdateParams{Output: output}); err != nil {
			return err
		}
	}
	return river.RecordOutput(ctx, map[string]any{"progress": 100, "message": "Done"})
}

// newQueue makes River's tables, and a client.
func newQueue(ctx context.Context, pool *pgxpool.Pool) (*river.Client[pgx.Tx], error) {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, exporter{})
	return river.NewClient(driver, &river.Config{Workers: workers, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 4}}})
}

// begin puts a job into the queue and answers with its id.
func begin(w http.ResponseWriter, r *http.Request, queue *river.Client[pgx.Tx]) {
	who, err := viewer(r)
	if err != nil {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	inserted, err := queue.Insert(r.Context(), exportArgs{UserID: who.UserID}, nil)
	if err != nil {
		http.Error(w, "try again later", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, inserted.Job.ID)
}
