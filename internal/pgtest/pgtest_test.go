package pgtest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"auditstream/internal/localpg"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

func TestNewGivesDistinctEmptyDatabases(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for range 3 {
		conn := Connect(t, New(t))
		var name, encoding string
		var tables int
		err := conn.QueryRow(t.Context(), `select current_database(), current_setting('server_encoding'),
			(select count(*) from pg_class where relnamespace = 'public'::regnamespace)`).Scan(&name, &encoding, &tables)
		testkit.NoError(t, err)
		if names[name] || tables != 0 || encoding != "UTF8" {
			t.Errorf("got database %q with %d tables in %s, want a new and empty one in UTF8", name, tables, encoding)
		}
		names[name] = true
	}
}

// fakeTB is a test that can fail without failing ours.
type fakeTB struct {
	testing.TB
	failed   bool
	log      string
	cleanups []func()
}

func (f *fakeTB) Failed() bool              { return f.failed }
func (f *fakeTB) Cleanup(fn func())         { f.cleanups = append(f.cleanups, fn) }
func (f *fakeTB) Logf(s string, a ...any)   { f.log += fmt.Sprintf(s, a...) }
func (f *fakeTB) Fatalf(s string, a ...any) { f.Logf(s, a...); f.failed = true; panic(f) }

func (f *fakeTB) run(test func()) {
	defer func() {
		if r := recover(); r != nil && r != any(f) {
			panic(r)
		}
		for _, fn := range f.cleanups {
			fn()
		}
	}()
	test()
}

func TestDatabaseIsDroppedThoughInUse(t *testing.T) {
	t.Parallel()
	var dsn string
	inner := &fakeTB{TB: t}
	inner.run(func() {
		dsn = New(inner)
		Connect(t, dsn) // outlives the inner test
	})
	_, err := pgx.Connect(t.Context(), dsn)
	if err == nil || !strings.Contains(err.Error(), "3D000") {
		t.Errorf("got %v, want that the database does not exist", err)
	}
}

func TestDatabaseOfAFailedTestIsKeptWhereTheServerLivesOn(t *testing.T) {
	t.Parallel()
	ours, err := sharedServer()
	testkit.NoError(t, err)
	foreign := &server{dsn: ours.dsn} // no stop: it is not ours
	inner := &fakeTB{TB: t}
	var dsn string
	inner.run(func() {
		dsn = foreign.newDatabase(inner, emptyTemplate)
		inner.failed = true
	})
	if !strings.Contains(inner.log, dsn) {
		t.Errorf("got log %q, want it to name the kept database", inner.log)
	}
	testkit.Equal(t, Psql(t, dsn, "select 'kept'"), "kept", "the kept database")
	name := dsn[strings.LastIndexByte(dsn, '/')+1 : strings.IndexByte(dsn, '?')]
	if err := ours.exec(t.Context(), "drop database "+quote(name)); err != nil {
		t.Error(err)
	}
}

// Its copies are the tests' own, and one that could not be prepared is prepared by the next test.
func TestTemplateIsPreparedOnce(t *testing.T) {
	t.Parallel()
	prepared := 0
	template := Template{Prepare: func(tb testing.TB, dsn string) {
		if prepared++; prepared == 1 {
			tb.Fatalf("the first time fails")
		}
		Psql(tb, dsn, "create table t as select 1 as n")
	}}
	inner := &fakeTB{TB: t}
	inner.run(func() { template.New(inner) })
	if !inner.failed {
		t.Error("a template that could not be prepared is used")
	}
	for range 3 {
		dsn := template.New(t)
		testkit.Equal(t, Psql(t, dsn, "update t set n = n + 1 returning n"), "2", "a copy of the prepared table")
	}
	if prepared != 2 {
		t.Errorf("prepared %d times, want 2", prepared)
	}
}

// A server that is not ours has no more databases afterwards than before.
func TestTemplatesAreDroppedWhereTheServerLivesOn(t *testing.T) {
	t.Parallel()
	s, err := sharedServer()
	testkit.NoError(t, err)
	name := "template_" + strings.Repeat("x", 12)
	s.create(t, name, emptyTemplate)
	err = s.drop([]string{name})
	if got := Psql(t, s.dsn, "select count(*) from pg_database where datname = '"+name+"'"); err != nil || got != "0" {
		t.Errorf("%s such databases are left, error %v", got, err)
	}
}

func TestGivenServerMustBeOfUse(t *testing.T) {
	dsn := New(t)
	Psql(t, dsn, `create role pgtest_weak login password 'weak'`)
	defer Psql(t, dsn, `drop role pgtest_weak`)
	weak := strings.Replace(dsn, dsn[strings.Index(dsn, "//")+2:strings.IndexByte(dsn, '@')], "pgtest_weak:weak", 1)
	for _, tt := range []struct{ dsn, want string }{
		{weak, "TEST_DATABASE_URL: its role is not a superuser"},
		{"host=127.0.0.1 password=hush", "invalid TEST_DATABASE_URL"},
		{"postgres://postgres:hush@127.0.0.1:1/postgres", "TEST_DATABASE_URL: "},
	} {
		t.Setenv("TEST_DATABASE_URL", tt.dsn)
		t.Setenv("AUDITSTREAM_TEST_POSTGRES", "")
		_, err := startServer(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	t.Setenv("TEST_DATABASE_URL", dsn)
	s, err := startServer(t.Context())
	if err != nil || s.stop != nil {
		t.Errorf("got %v, want a server that is not ours to stop", err)
	}
}

func TestForcedKindIsNotReplaced(t *testing.T) {
	t.Setenv("AUDITSTREAM_TEST_POSTGRES", "container")
	t.Setenv("TEST_POSTGRES_IMAGE", "127.0.0.1:1/none:0")
	if _, err := startServer(t.Context()); err == nil {
		t.Error("got a server, want an error")
	}
	t.Setenv("AUDITSTREAM_TEST_POSTGRES", "oracle")
	if _, err := startServer(t.Context()); err == nil || !strings.Contains(err.Error(), `"oracle"`) {
		t.Errorf("got %v, want the bad value named", err)
	}
}

func TestNewServerCanBeStoppedAndStarted(t *testing.T) {
	t.Parallel()
	inner := &fakeTB{TB: t}
	var logFile string
	inner.run(func() {
		s := NewServer(inner, func(c *localpg.Config) { c.Settings = map[string]string{"work_mem": "5MB"} })
		logFile = s.LogFile()
		testkit.NoError(t, s.StopImmediate(t.Context()))
		testkit.NoError(t, s.Restart(t.Context()))
		testkit.Equal(t, Psql(t, s.DSN("postgres"), "show work_mem; show fsync"), "5MB\non", "settings")
	})
	if _, err := os.Stat(logFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the server left %s: %v", logFile, err)
	}
}

func TestPsqlFailsTheTest(t *testing.T) {
	t.Parallel()
	dsn := New(t)
	testkit.Equal(t, Psql(t, dsn, "select 1, 'two'; select 3"), "1|two\n3", "psql")
	inner := &fakeTB{TB: t}
	inner.run(func() { Psql(inner, dsn, "select 1; select no_such_column; select 2") })
	if !inner.failed || !strings.Contains(inner.log, "no_such_column") {
		t.Errorf("got failed %v, log %q, want PostgreSQL's error", inner.failed, inner.log)
	}
}

func TestDatabaseNameFits(t *testing.T) {
	t.Parallel()
	for _, test := range []string{"TestÄnderung/with spaces", "Test" + strings.Repeat("Long", 40), ""} {
		got := databaseName(test)
		if len(got) > 63 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%q: got %q", test, got)
		}
	}
}
