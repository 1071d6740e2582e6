package auditstream_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream"
	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database returns a database with the adopted table audits, whose row 42 is alice's.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	dsn := pgtest.New(t)
	_, err := auditstream.Install(t.Context(), pgtest.Connect(t, dsn), auditstream.Table{Create: true})
	testkit.NoError(t, err)
	pool := open(t, dsn)
	execute(t, pool, `insert into audits (id, user_id, url, status, progress) overriding system value values (42, 'alice', 'https://x.example', 'running', 25)`)
	return pool
}

func open(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	testkit.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// execute runs SQL in a pool, a connection or a transaction.
func execute(t *testing.T, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, sql string) {
	t.Helper()
	_, err := db.Exec(t.Context(), sql)
	testkit.NoError(t, err)
}

// asHeader is the simplest Viewer: a header names the user.
func asHeader(r *http.Request) (auditstream.Viewer, error) {
	user := r.Header.Get("X-User")
	if user == "" {
		return auditstream.Viewer{}, fmt.Errorf("no header X-User: %w", auditstream.ErrUnauthenticated)
	}
	return auditstream.Viewer{UserID: user}, nil
}

// run makes a service and runs it until the end of the test, or stop.
func run(t *testing.T, pool *pgxpool.Pool, o auditstream.Options) (s *auditstream.Service, stop func()) {
	t.Helper()
	if o.Viewer == nil && o.Auth == (auditstream.Auth{}) {
		o.Viewer = asHeader
	}
	s, err := auditstream.New(pool, o)
	testkit.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// serve serves a handler until the end of the test.
func serve(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// stream is the open answer of a stream.
type stream struct {
	status int
	lines  *bufio.Scanner
}

func follow(t *testing.T, url, user string) *stream {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	testkit.NoError(t, err)
	if user != "" {
		r.Header.Set("X-User", user)
	}
	resp, err := http.DefaultClient.Do(r)
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &stream{resp.StatusCode, bufio.NewScanner(resp.Body)}
}

// until reads up to a line that contains text.
func (s *stream) until(t *testing.T, text string) {
	t.Helper()
	var seen []string
	for s.lines.Scan() {
		seen = append(seen, s.lines.Text())
		if strings.Contains(s.lines.Text(), text) {
			return
		}
	}
	t.Fatalf("status %d, the answer ended without %q: %q, %v", s.status, text, seen, s.lines.Err())
}

// within returns a context that ends long after anything that a test waits for.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
