package localpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// TestMain is also the helper process: with this variable set, the binary runs a server (see directory_test.go).
func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCALPG_TEST_OWNER"); dir != "" {
		if err := ownServer(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// tempDir is used instead of t.TempDir, which the server's account cannot enter.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg-test-")
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func fast(dir string) Config {
	return Config{Dir: dir, Settings: map[string]string{"fsync": "off"}}
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	testkit.NoError(t, err)
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	testkit.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var got string
	testkit.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&got))
	return got
}

func exec1(t *testing.T, s *Server, sql string) {
	t.Helper()
	query(t, s, "with done as ("+sql+" returning 1) select 'done' from done")
}

func TestDataOutlivesRestarts(t *testing.T) {
	t.Parallel()
	s := start(t, fast(tempDir(t)))
	address := s.DSN("postgres")
	conn, err := pgx.Connect(t.Context(), address)
	testkit.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "create table kept (how text)"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		end  func(context.Context) error
	}{
		{"fast", s.StopFast},
		{"immediate", s.StopImmediate},
		{"crash", s.Crash},
		{"running", func(context.Context) error { return nil }},
	} {
		exec1(t, s, "insert into kept values ('"+step.name+"')")
		before := s.PID()
		if err := step.end(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.name != "running" && s.PID() != 0 {
			t.Fatalf("%s: PID %d after the end", step.name, s.PID())
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if s.PID() == before || s.DSN("postgres") != address {
			t.Errorf("%s: want another process at the same address", step.name)
		}
	}
	testkit.Equal(t, query(t, s, "select string_agg(how, ',') from kept"), "fast,immediate,crash,running", "rows")
}

func TestDirKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := start(t, fast(dir))
	exec1(t, s, "insert into pg_largeobject_metadata (oid, lomowner) values (4711, 10)") // a row without a DDL statement
	stop(t, s)
	stop(t, s) // twice is once

	again := start(t, fast(dir))
	testkit.Equal(t, query(t, again, "select count(*)::text from pg_largeobject_metadata"), "1", "rows")
	if s.password != again.password {
		t.Error("the password changed")
	}
}

func TestPasswordIsAskedFor(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Dir: tempDir(t), Ephemeral: true})
	_, err := pgx.Connect(t.Context(), strings.Replace(s.DSN("postgres"), s.password, "guess", 1))
	if err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("got %v, want an authentication failure", err)
	}
	if rules := query(t, s, "select string_agg(distinct auth_method, ',') from pg_hba_file_rules"); rules != "scram-sha-256" {
		t.Errorf("got authentication %s, want scram-sha-256 alone", rules)
	}
}

func TestEphemeralLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "closed") // for root: the data goes elsewhere
	s := start(t, Config{Dir: dir, Ephemeral: true})
	if os.Geteuid() == 0 {
		location, err := os.ReadFile(filepath.Join(dir, "location"))
		if err != nil || strings.TrimSpace(string(location)) != s.home {
			t.Errorf("got pointer %q, %v, want %s", location, err, s.home)
		}
	}
	stop(t, s)
	for _, path := range []string{dir, s.home} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestServerIsNotRoot(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Dir: tempDir(t), Ephemeral: true})
	out, err := exec.Command("stat", "-c", "%u", fmt.Sprintf("/proc/%d", s.PID())).Output()
	if err != nil {
		out, err = exec.Command("ps", "-o", "uid=", "-p", fmt.Sprint(s.PID())).Output()
	}
	testkit.NoError(t, err)
	if got := strings.TrimSpace(string(out)); got == "0" || got != fmt.Sprint(s.account.uid) {
		t.Errorf("got uid %s, want %d", got, s.account.uid)
	}
}

func TestPausedServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Dir: tempDir(t), Ephemeral: true})
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	testkit.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	testkit.NoError(t, s.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "select 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want no answer", err)
	}
	testkit.NoError(t, s.Resume())
	testkit.Equal(t, query(t, s, "select 'awake'"), "awake", "after the pause")
	if err := s.Pause(); err != nil { // Stop must cope
		t.Fatal(err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	defer func() { _ = l.Close() }()
	dir := tempDir(t)
	cfg := Config{Dir: dir, Ephemeral: true, Port: l.Addr().(*net.TCPAddr).Port}
	if _, err = Start(t.Context(), cfg); !errors.Is(err, errPortTaken) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want the taken port named", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"Dir is required": {},
		"Port 70000":      {Dir: "x", Port: 70000},
		`unrecognized configuration parameter "no_such_setting"`: { // which PostgreSQL's log says
			Dir: tempDir(t), Ephemeral: true, Settings: map[string]string{"no_such_setting": "1"}},
	} {
		if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOldBinariesAreRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		says, version, problem string
	}{
		{"postgres (PostgreSQL) 9.6.24", "", "is version 9.6.24"},
		{"postgres (PostgreSQL) 13.2", "", "is version 13.2"},
		{"postgres (PostgreSQL) 14.0", "14.0", ""},
		{"postgres (PostgreSQL) 18beta1", "18beta1", ""},
		{"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18", ""},
		{"something else", "", "says"},
	} {
		dir := t.TempDir()
		script := "#!/bin/sh\necho '" + tt.says + "'\n"
		for _, name := range []string{"postgres", "initdb"} {
			testkit.WriteProgram(t, filepath.Join(dir, name), []byte(script))
		}
		b, err := inspectDir(t.Context(), dir)
		if b.version != tt.version || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s: got %q, %v; want %q, %q", tt.says, b.version, err, tt.version, tt.problem)
		}
	}
}
