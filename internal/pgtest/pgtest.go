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

// shared is the server of this test binary. The first New starts it, so that tests without a database do not wait for it.
var shared struct {
	mu     sync.Mutex
	main   bool // Main runs, and will stop the server
	tried  bool
	server *server
	err    error

	templates []string // the databases that Templates have prepared
}

// Main runs the tests of a package, calls after, stops the server, fails if goroutines are left, and exits. Call it from TestMain.
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
	// Idle keep-alive connections of the default client are not leaks of the tested code.
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest: goroutines are left after the tests:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New returns the superuser's URL of a new empty database, which is dropped when the test is over. If the test fails and the server lives on, the
// database is kept and its URL is logged.
func New(tb testing.TB) string {
	tb.Helper()
	s, err := sharedServer()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s.newDatabase(tb, emptyTemplate)
}

// emptyTemplate is the database that PostgreSQL keeps empty. Nobody can be connected to it, which would make a copy fail, and it allows any
// encoding.
const emptyTemplate = "template0"

func (s *server) create(tb testing.TB, name, template string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	// With encoding and order named here, they are the same on every server. An image without a locale has SQL_ASCII as its default.
	sql := "create database " + quote(name) + " template " + template + " encoding 'UTF8' lc_collate 'C' lc_ctype 'C'"
	// With wal_log, the default of PostgreSQL 15 and later, a new database takes 75 ms of processor time instead of 20. On a server that
	// others use, the two checkpoints of file_copy would cost more.
	if s.stop != nil && !strings.HasPrefix(s.version, "14.") {
		sql += " strategy file_copy"
	}
	if err := s.exec(ctx, sql); err != nil {
		tb.Fatalf("pgtest: create database: %v", err)
	}
}

func (s *server) newDatabase(tb testing.TB, template string) string {
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
func Connect(tb testing.TB, dsn string) *pgx.Conn {
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
		return nil, fmt.Errorf("nobody would stop the server: add a TestMain that calls pgtest.Main to this package")
	}
	if !shared.tried {
		shared.tried = true
		// Not the test's context, because later tests use the server, too.
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

// databaseName returns a name in which the test is recognisable, in at most the 63 bytes that PostgreSQL keeps.
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
