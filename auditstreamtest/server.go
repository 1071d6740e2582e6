package auditstreamtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// defaultTimeout is how long Watch and Wait wait. If shorter, tests fail on a busy machine; if longer, failing tests take longer.
	defaultTimeout = 10 * time.Second
	// pollInterval is longer than any Wait, so that a change which no trigger announces fails the test; in production it would be late.
	pollInterval = 5 * time.Minute
	// retryDelay is how long viewers wait before they reconnect after a fault.
	retryDelay = 20 * time.Millisecond
)

// Server is a server in the test's process. Its methods are safe for concurrent use.
type Server struct {
	// URL is the server's base URL, without a slash at the end: http://127.0.0.1:PORT.
	URL string

	secret   string
	timeout  time.Duration
	options  auditstream.Options
	database *pgxpool.Pool // the test's own
	pool     *pgxpool.Pool // the service's, through reads
	reads    *network      // carries pool's connections
	listens  *network      // carries the connections for LISTEN and locks
	log      *tail

	mu      sync.Mutex // held while the service is stopped or replaced
	service atomic.Pointer[auditstream.Service]
	stop    func() error
}

// Option is an option of [New].
type Option func(*settings)

type settings struct {
	tables  []auditstream.Table
	timeout time.Duration
	options auditstream.Options
}

// Table adopts a table whose columns Install finds by their names; for other columns use [Adopt].
func Table(name string) Option { return Adopt(auditstream.Table{Name: name}) }

// Adopt adopts a table with all its choices. Give it several times for several feeds.
func Adopt(t auditstream.Table) Option {
	return func(s *settings) { s.tables = append(s.tables, t) }
}

// Timeout sets how long Watch and Wait wait before they fail the test. Default: 10 s.
func Timeout(d time.Duration) Option { return func(s *settings) { s.timeout = d } }

// Options sets the service's options. Without Viewer and Auth in them, the service accepts the tokens of [Server.Token].
func Options(o auditstream.Options) Option { return func(s *settings) { s.options = o } }

// New serves the rows of a database until the test ends. database is a pool or a connection string, whose role adopts the tables in
// options. Any error fails the test.
func New[D *pgxpool.Pool | string](t testing.TB, database D, options ...Option) *Server {
	t.Helper()
	set := settings{timeout: defaultTimeout}
	for _, option := range options {
		option(&set)
	}
	srv := &Server{secret: rand.Text() + rand.Text(), timeout: set.timeout, log: new(tail), reads: newNetwork(), listens: newNetwork()}
	t.Cleanup(srv.reads.close)
	t.Cleanup(srv.listens.close)
	if err := srv.prepare(t, database, set); err != nil {
		t.Fatalf("auditstreamtest: %v", err)
	}
	http := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { srv.service.Load().ServeHTTP(w, r) }))
	t.Cleanup(http.Close)
	srv.URL = http.URL
	if err := srv.start(t.Context()); err != nil {
		t.Fatalf("auditstreamtest: %v\n%s", err, srv.log)
	}
	t.Cleanup(func() {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		if err := srv.stop(); err != nil {
			t.Errorf("auditstreamtest: %v", err)
		}
	})
	return srv
}

// prepare opens the pools, adopts the tables and completes the options.
func (s *Server) prepare(t testing.TB, database any, set settings) (err error) {
	switch d := database.(type) {
	case *pgxpool.Pool:
		if s.database = d; d == nil {
			return errors.New("the pool is nil")
		}
	case string:
		if s.database, err = pgxpool.New(t.Context(), d); err != nil {
			return errors.New("the connection string cannot be parsed (not shown, it may hold a password)")
		}
		t.Cleanup(s.database.Close)
	}
	for _, table := range set.tables {
		if err := adopt(t, s.database, table); err != nil {
			return fmt.Errorf("install %s: %w", table.Name, err)
		}
	}
	config := s.database.Config()
	config.ConnConfig.DialFunc = s.reads.dial
	config.MinConns = 0
	if s.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		return err
	}
	t.Cleanup(s.pool.Close)
	s.options = set.options
	s.options.PollInterval, s.options.Retry = cmp.Or(s.options.PollInterval, pollInterval), cmp.Or(s.options.Retry, retryDelay)
	s.options.ListenConfig = config.ConnConfig.Copy()
	s.options.ListenConfig.DialFunc = s.listens.dial
	if s.options.Viewer == nil && s.options.Auth == (auditstream.Auth{}) {
		s.options.Auth.Secret = s.secret
	}
	if s.options.Logger == nil {
		s.options.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	}
	return nil
}

func adopt(t testing.TB, pool *pgxpool.Pool, table auditstream.Table) error {
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		return err
	}
	defer conn.Release()
	_, err = auditstream.Install(t.Context(), conn.Conn(), table)
	return err
}

// start starts a service and waits until it receives notifications. The caller holds mu, or is New.
func (s *Server) start(ctx context.Context) error {
	service, err := auditstream.New(s.pool, s.options)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ran := make(chan error, 1)
	go func() { ran <- service.Run(ctx) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-ran })
	s.service.Store(service)
	if err := s.awaitListener(ctx); err != nil {
		return errors.Join(err, s.stop())
	}
	return nil
}

// awaitListener asks /readyz, as operators do, until notifications arrive.
func (s *Server) awaitListener(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if err := s.service.Load().Ready(ctx); errors.Is(err, auditstream.ErrNotInstalled) {
			return fmt.Errorf("%w (give New the option Table, or Adopt)", auditstream.ErrNotInstalled)
		}
		answer := httptest.NewRecorder()
		s.service.Load().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if strings.Contains(answer.Body.String(), `"listener":"up"`) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the service does not hear of changes within 30 s; /readyz says %s", answer.Body)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Token returns a token of a user, for the header Authorization: Bearer TOKEN. It is valid for an hour, and for this server only.
func (s *Server) Token(user string) string {
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(s.secret))
	if err != nil {
		panic(err) // cannot happen: the claims are a text and a number, the key is bytes
	}
	return token
}
