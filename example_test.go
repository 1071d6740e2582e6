package auditstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"auditstream"

	"github.com/gorilla/mux"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

var (
	ctx    = context.Background()
	pool   *pgxpool.Pool
	conn   *pgx.Conn
	router *mux.Router
	group  *errgroup.Group
)

// A program with its own sessions returns who sends a request.
func Example_session() {
	sessions := map[string]string{"c0ffee": "user-1"} // your program's sessions
	as, err := auditstream.New(pool, auditstream.Options{
		Viewer: func(r *http.Request) (auditstream.Viewer, error) {
			cookie, err := r.Cookie("session")
			if err != nil || sessions[cookie.Value] == "" {
				return auditstream.Viewer{}, auditstream.ErrUnauthenticated
			}
			return auditstream.Viewer{UserID: sessions[cookie.Value]}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	router.PathPrefix("/api/v1/").Handler(as)
	group.Go(func() error { return as.Run(ctx) })
}

// Without sessions, requests carry tokens: Authorization: Bearer JWT.
func Example_tokens() {
	as, err := auditstream.New(pool, auditstream.Options{Auth: auditstream.Auth{
		JWKSURL: "https://issuer.example.com/.well-known/jwks.json", Issuer: "https://issuer.example.com/", Audience: "progress",
	}})
	if err != nil {
		panic(err)
	}
	router.PathPrefix("/api/v1/").Handler(as)
	group.Go(func() error { return as.Run(ctx) })
}

// The handler under another prefix.
func Example_prefix() {
	var as *auditstream.Service
	router.PathPrefix("/live/").Handler(http.StripPrefix("/live", as)) // /live/api/v1/sse/audits/42/progress
}

// Streams end before the server does: Run ends them, and Shutdown waits for other requests.
func Example_drain() {
	var as *auditstream.Service
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Addr: ":8080", Handler: as, ReadHeaderTimeout: 5 * time.Second} // no WriteTimeout: it would end streams
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return as.Run(ctx) })
	group.Go(func() error {
		if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return srv.Shutdown(last)
	})
	if err := group.Wait(); err != nil {
		panic(err)
	}
}

// A program that follows a row itself.
func Example_watch() {
	var as *auditstream.Service
	for state, err := range as.Watch(ctx, auditstream.Key{Feed: "jobs", ID: "7d5f2c1e-9a4b-4c7e-8f10-2b6a3d9e0c11"}) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s %d %%\n", state.Status, state.Progress)
	}
}

// River's table of jobs as a feed.
func Example_install() {
	report, err := auditstream.Install(ctx, conn, auditstream.Table{
		Name: "river_job", Feed: "jobs",
		Columns: map[string]string{"status": "state", "progress": "metadata.output.progress", "user_id": "args.user_id"},
		Status:  map[string]string{"discarded": "failed", "cancelled": "failed", "available": "pending"},
		Fields:  []string{"kind", "attempt"},
	})
	if err != nil {
		panic(err)
	}
	for _, warning := range report.Warnings {
		fmt.Println("warning:", warning)
	}
}

// A migration with the SQL that Install would run.
func Example_migration() {
	script, err := auditstream.InstallSQL(ctx, conn, auditstream.Table{Name: "public.audits"})
	if err != nil {
		panic(err)
	}
	fmt.Printf("-- +goose Up\n-- +goose StatementBegin\n%s-- +goose StatementEnd\n", script)
}

// Behind a transaction pooler, LISTEN needs a direct connection.
func Example_pooler() {
	listen, err := pgx.ParseConfig("postgres://app@primary.internal:5432/app")
	if err != nil {
		panic(err)
	}
	_, err = auditstream.New(pool, auditstream.Options{ListenConfig: listen, Auth: auditstream.Auth{Secret: "..."}})
	fmt.Println(err)
}

// The metrics go to your program's registry.
func Example_metrics() {
	_, err := auditstream.New(pool, auditstream.Options{
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"database": "app"}, prometheus.DefaultRegisterer),
		Auth:       auditstream.Auth{Secret: "..."},
	})
	fmt.Println(err)
}

// New finds a mistake in the options, and names the field.
func ExampleUsageError() {
	pool, err := pgxpool.New(ctx, "postgres://app@127.0.0.1/app") // connects later
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	_, err = auditstream.New(pool, auditstream.Options{Heartbeat: -time.Second, Auth: auditstream.Auth{Secret: "0123456789abcdef0123456789abcdef"}})
	fmt.Println(err)
	_, ok := errors.AsType[auditstream.UsageError](err)
	fmt.Println(ok)
	// Output:
	// Options.Heartbeat: -1s is negative; give a time greater than 0
	// true
}
