package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// TestDevRefusesDatabaseURL is not parallel: it sets the environment.
func TestDevRefusesDatabaseURL(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://u:geheimnis@127.0.0.1:1/x")
	dir := filepath.Join(t.TempDir(), "data")
	got := command(t, "dev", "--dir="+dir).want(t, exitUsage)
	mustContain(t, got.stderr, "DATABASE_URL is set", "unset DATABASE_URL")
	mustNotContain(t, got.stderr, "geheimnis")
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it made %s: %v", dir, err)
	}
}

// TestDevRefusesTakenAddress is not parallel: it sets the environment, as for serve.
func TestDevRefusesTakenAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "data")
	t.Setenv("HTTP_ADDR", l.Addr().String())
	got := command(t, "dev", "--dir="+dir).want(t, exitFailed)
	mustContain(t, got.stderr, "HTTP_ADDR (--http-addr): cannot listen on "+l.Addr().String(), "address already in use")
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it made %s before it looked: %v", dir, err)
	}
}

func TestDevTakesNextPort(t *testing.T) {
	t.Parallel()
	usual := net.JoinHostPort(devHost, strconv.Itoa(devPort))
	if l, err := net.Listen("tcp", usual); err == nil { // else somebody else has it, which is as good
		defer l.Close()
	}
	var out bytes.Buffer
	addr, err := new(devCmd).address(t.Context(), &out)
	testkit.NoError(t, err)
	host, port, err := net.SplitHostPort(addr)
	testkit.NoError(t, err)
	if host != devHost || addr == usual {
		t.Errorf("address %s, want another port of %s", addr, devHost)
	}
	testkit.Equal(t, out.String(), fmt.Sprintf("Port %d is taken, using %s.\n", devPort, port), "it says")
}

func TestDevSecretIsKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jwt-secret")
	secret := func() string {
		t.Helper()
		key, err := devSecret(path)
		testkit.NoError(t, err)
		return key
	}
	first := secret()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info, err)
	}
	if again := secret(); again != first {
		t.Error("the second call returns another key")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil { // killed while writing
		t.Fatal(err)
	}
	if again := secret(); len(again) < 32 || again == first {
		t.Errorf("an empty file leads to a key of %d bytes", len(again))
	}
}

// TestDev does what the lines on the screen say.
func TestDev(t *testing.T) {
	t.Parallel()
	dir := devDir(t)
	d := startDev(t, dir)
	mustContain(t, d.screen, "Starting PostgreSQL in .auditstream", "Ctrl-C")

	events := shell(t, dir, d.line(t, "curl"))
	testkit.Equal(t, events.data(t), `{"audit_id":1,"status":"running","progress":0,"message":"Waiting for your UPDATE"}`, "curl prints")
	runShell(t, dir, d.line(t, "psql"))
	if got, want := events.data(t), `{"audit_id":1,"status":"running","progress":50,"message":"by hand at `; !strings.HasPrefix(got, want) {
		t.Errorf("after psql, curl prints %s, want %s...", got, want)
	}
	foreign := strings.Replace(d.line(t, "curl"), "/audits/1/", "/audits/2/", 1)
	testkit.Equal(t, runShell(t, dir, foreign+" -s"), `{"error":"Cross-user access denied"}`, "somebody else's audit")
	d.checkPage(t)

	second := program(t, nil, "dev", "--http-addr=127.0.0.1:0")
	second.Dir = dir
	out, err := second.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("a second dev in the same directory: %v, want exit status 1\n%s", err, out)
	}
	mustContain(t, string(out), "is in use by another run (process "+strconv.Itoa(d.cmd.Process.Pid)+")")

	processes := d.postgres(t)
	start := time.Now()
	d.stop(t, os.Interrupt)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	checkGone(t, processes)
	if d.stderr.Len() > 0 {
		t.Errorf("standard error: %s", d.stderr.String())
	}
}

// TestDevRecoversFromKill: the next run stops what is left of the killed one, and open tabs go on.
func TestDevRecoversFromKill(t *testing.T) {
	t.Parallel()
	dir := devDir(t)
	first := startDev(t, dir)
	processes := first.postgres(t)
	first.signal(t, os.Kill)
	first.end(t)

	second := startDev(t, dir)
	checkGone(t, processes)
	// The first run's token, the second run's address.
	_, path, _ := strings.Cut(second.line(t, "curl"), "http://")
	bearer, _, _ := strings.Cut(first.line(t, "curl"), "http://")
	events := shell(t, dir, bearer+"http://"+path)
	mustContain(t, events.data(t), `"audit_id":1,"status":"running"`)

	unfinished := pgtest.Psql(t, second.database(t),
		`select url from audits where status not in ('completed', 'failed') group by url having count(*) > 1`)
	if unfinished != "" {
		t.Errorf("audits of the killed run are left running: %s", unfinished)
	}
	second.stop(t, syscall.SIGTERM)
}

// TestDevStopsWhilePaused: Ctrl-C while a button of the page has paused PostgreSQL ends dev as at other times.
func TestDevStopsWhilePaused(t *testing.T) {
	t.Parallel()
	d := startDev(t, devDir(t))
	processes, url := d.postgres(t), d.database(t)
	page := pageLine.FindStringSubmatch(d.screen)[1]
	testkit.Eventually(t, "PostgreSQL is paused, and does not answer", func() bool {
		resp, err := http.Post(page+"dev/pause", "", nil) // refused while it is paused
		if err != nil {
			return false
		}
		resp.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			conn.Close(t.Context())
		}
		return err != nil
	})
	d.stop(t, os.Interrupt)
	checkGone(t, processes)
}

// TestDevStopsWhileStarting: Ctrl-C during the first seconds is no failure.
func TestDevStopsWhileStarting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(devDir(t), ".auditstream")
	out := cancelOn{text: "Starting PostgreSQL", cancel: cancel}
	var stderr bytes.Buffer
	if code := run(ctx, []string{"dev", "--dir=" + dir, "--http-addr=127.0.0.1:0"}, streams{&out, &stderr}); code != exitDone {
		t.Errorf("exit status %d, want 0\n%s", code, stderr.String())
	}
}

type cancelOn struct {
	text   string
	cancel func()
}

func (c *cancelOn) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		c.cancel()
	}
	return len(p), nil
}

func TestPsqlLine(t *testing.T) {
	// Not parallel: it sets the environment.
	dir := filepath.Join(t.TempDir(), "it's here")
	testkit.NoError(t, os.Mkdir(dir, 0o755))
	t.Setenv("PATH", "")
	testkit.Equal(t, psqlCommand(dir), "psql", "without any psql")
	testkit.WriteProgram(t, filepath.Join(dir, "psql"), []byte("#!/bin/sh\necho \"$@\"\n"))
	out, err := exec.Command("/bin/sh", "-c", psqlLine(dir, "postgres://u:p@h/d?sslmode=disable", 7)).Output()
	testkit.NoError(t, err)
	want := "postgres://u:p@h/d?sslmode=disable -c update audits set progress = 50, message = 'by hand at ' || now()::time(0) where id = 7\n"
	if string(out) != want {
		t.Errorf("the shell passes on %s, want %s", out, want)
	}
}
