// Package pgtest gives every test of this repository a real PostgreSQL.
//
// The one rule: a test never skips and never shares. It gets an empty database of its own or it fails with the remedy.
//
// The server is TEST_DATABASE_URL if that is set, else a container where a Docker engine answers, else one from local
// binaries. AUDITSTREAM_TEST_POSTGRES=local or =container allows that kind only.
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// TB is what this package uses of testing.TB.
type TB interface {
	Cleanup(func())
	Context() context.Context
	Failed() bool
	Fatalf(format string, args ...any)
	Helper()
	Logf(format string, args ...any)
	Name() string
}

var _ TB = testing.TB(nil)

// shared is the server of this test binary. It starts with the first New, so that pure unit tests do not wait for it.
var shared struct {
	mu     sync.Mutex
	main   bool // Main runs, and will stop it
	tried  bool
	server *server
	err    error

	templates []string // the names of the databases that a Template prepared
}

// Main runs the tests of a package, stops the server, looks for goroutines left behind and exits. Call it from
// TestMain.
func Main(m *testing.M, after ...func()) {
	shared.mu.Lock()
	shared.main = true
	shared.mu.Unlock()

	code := m.Run()
	for _, f := range after {
		f()
	}
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	// Idle keep-alive connections of the default client are not leaks of the code under test.
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest: goroutines are left after the tests:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New returns the URL, for the superuser, of an empty database that is the test's own. It is dropped when the test is
// over; if the test failed and the server lives on, it is kept and its URL is logged.
func New(tb TB) string {
	tb.Helper()
	s, err := sharedServer()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s.newDatabase(tb, emptyTemplate)
}

// emptyTemplate is what PostgreSQL keeps empty: nobody is ever connected to it, which would make a copy fail, and it allows any
// encoding.
const emptyTemplate = "template0"

func (s *server) create(tb TB, name, template string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	// Named here, the encoding and the order are the same on every server: an image without a locale makes SQL_ASCII its default.
	sql := "create database " + quote(name) + " template " + template + " encoding 'UTF8' lc_collate 'C' lc_ctype 'C'"
	// Through the log, as PostgreSQL 15 and later do it otherwise, a database costs 75 ms of processor time instead of 20. On a server
	// that others use the two checkpoints would cost more.
	if s.stop != nil && !strings.HasPrefix(s.version, "14.") {
		sql += " strategy file_copy"
	}
	if err := s.exec(ctx, sql); err != nil {
		tb.Fatalf("pgtest: create database: %v", err)
	}
}

func (s *server) newDatabase(tb TB, template string) string {
	tb.Helper()
	name := databaseName(tb.Name())
	s.create(tb, name, template)
	dsn, err := withDatabase(s.dsn, name)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() && s.stop == nil {
			tb.Logf("pgtest: kept the database of this failed test: %s", dsn)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
		defer cancel()
		if err := s.exec(ctx, "drop database if exists "+quote(name)+" with (force)"); err != nil {
			tb.Logf("pgtest: drop database: %v", err)
		}
	})
	return dsn
}

// Connect opens a connection that is closed when the test is over.
func Connect(tb TB, dsn string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatalf("pgtest: connect: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the test may have killed the server
	})
	return conn
}

func sharedServer() (*server, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.main {
		return nil, fmt.Errorf("this package has no TestMain that calls pgtest.Main, so nobody would stop the server")
	}
	if !shared.tried {
		shared.tried = true
		// Not the test's context: the server serves the tests after it too.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		shared.server, shared.err = startServer(ctx)
		if shared.err == nil {
			fmt.Fprintf(os.Stderr, "pgtest: PostgreSQL %s from %s\n", shared.server.version, shared.server.origin)
		}
	}
	return shared.server, shared.err
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		return nil
	}
	if shared.server.stop == nil {
		return shared.server.drop(shared.templates)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return shared.server.stop(ctx)
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// databaseName makes the test's name recognisable in pg_stat_activity, within the 63 bytes that PostgreSQL keeps.
func databaseName(test string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '_'
		}
	}, test)
	return clean[:min(len(clean), 40)] + "_" + strings.ToLower(rand.Text()[:12])
}

func withDatabase(dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("address of the server: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}
