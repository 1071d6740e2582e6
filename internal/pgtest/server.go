package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"auditstream/internal/localpg"

	"github.com/jackc/pgx/v5"
)

const startTimeout = 5 * time.Minute // a first run may have to pull the image

// server is the server on which New makes databases.
type server struct {
	dsn     string
	version string
	origin  string                      // where it comes from, for the log
	stop    func(context.Context) error // nil: the server is not ours and lives on
}

// settings are the server's settings for data that nobody needs after the run.
func settings() map[string]string {
	return map[string]string{
		"max_connections":    "600", // many tests in parallel, each with pools of its own
		"fsync":              "off",
		"synchronous_commit": "off",
		"full_page_writes":   "off",
		"max_wal_size":       "256MB", // the data may be in memory
	}
}

func startServer(ctx context.Context) (*server, error) {
	s, err := chooseServer(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		if s.stop != nil {
			err = errors.Join(err, s.stop(ctx))
		}
		return nil, err
	}
	return s, nil
}

func chooseServer(ctx context.Context) (*server, error) {
	switch kind := os.Getenv("AUDITSTREAM_TEST_POSTGRES"); kind {
	case "container":
		return startContainer(ctx)
	case "local":
		return startLocal(ctx)
	case "":
	default:
		return nil, fmt.Errorf(`invalid AUDITSTREAM_TEST_POSTGRES %q: want "local" or "container", or leave it unset`, kind)
	}
	if dsn := os.Getenv("TEST_DATABASE_URL"); dsn != "" {
		return givenServer(dsn)
	}
	s, err := startContainer(ctx)
	var absent *absentError
	if !errors.As(err, &absent) {
		// A container that fails to start must not silently be replaced by another server.
		return s, err
	}
	if absent.mustLog {
		fmt.Fprintf(os.Stderr, "pgtest: %v; taking local binaries\n", absent)
	}
	s, localErr := startLocal(ctx)
	if localErr != nil {
		return nil, fmt.Errorf("no PostgreSQL for the tests: set TEST_DATABASE_URL, start Docker or install PostgreSQL: %w", errors.Join(err, localErr))
	}
	return s, nil
}

func givenServer(dsn string) (*server, error) {
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// Without the parser's error, which repeats the password.
		return nil, errors.New("invalid TEST_DATABASE_URL (not shown, it may hold a password): want a URL like postgres://postgres:secret@127.0.0.1:5432/postgres")
	}
	return &server{dsn: dsn, origin: "TEST_DATABASE_URL"}, nil
}

func startLocal(ctx context.Context) (*server, error) {
	// Remove what killed test binaries have left (after a time-out of go test, or Ctrl-C).
	for _, dir := range []string{os.TempDir(), tempDir()} {
		if err := localpg.Sweep(ctx, filepath.Join(dir, tempPattern)); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest: clear up after killed runs:", err)
		}
	}
	s, err := startTemporary(ctx, tempDir(), localpg.Config{Settings: settings()})
	if err != nil {
		return nil, err
	}
	return &server{dsn: s.DSN("postgres"), origin: "local binaries (" + s.BinDir() + ")", stop: s.Stop}, nil
}

const tempPattern = "auditstream-pgtest-*"

func startTemporary(ctx context.Context, parent string, cfg localpg.Config) (*localpg.Server, error) {
	dir, err := os.MkdirTemp(parent, tempPattern)
	if err != nil {
		return nil, err
	}
	cfg.Dir, cfg.Ephemeral = dir, true
	s, err := localpg.Start(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// NewServer returns a private server, for tests that stop, pause or kill it. It runs from local binaries, with PostgreSQL's default settings
// and on disk, in a directory that is removed when the test is over.
func NewServer(tb testing.TB, options ...func(*localpg.Config)) *localpg.Server {
	tb.Helper()
	var cfg localpg.Config
	for _, option := range options {
		option(&cfg)
	}
	s, err := startTemporary(tb.Context(), os.TempDir(), cfg)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			tb.Logf("pgtest: stop the private server: %v", err)
		}
	})
	return s
}

// check reads the server's version, and checks that the role is a superuser.
func (s *server) check(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return fmt.Errorf("%s: %w", s.origin, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var super bool
	err = conn.QueryRow(ctx, `select current_setting('server_version'), rolsuper from pg_roles where rolname = current_user`).
		Scan(&s.version, &super)
	if err != nil {
		return fmt.Errorf("%s: %w", s.origin, err)
	}
	s.version, _, _ = strings.Cut(s.version, " ") // "15.18 (Debian 15.18-0+deb12u1)"
	if !super {
		return fmt.Errorf("%s: its role is not a superuser; give a superuser, because the tests create databases and roles", s.origin)
	}
	return nil
}

func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}
