package main

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"auditstream/internal/testkit"
)

// A command gets the private database, and its output and exit status are dev's. The next run finds the data that it wrote.
func TestDevRunsACommand(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(devDir(t), ".auditstream")
	run := func(args ...string) (stdout string, code int) {
		t.Helper()
		cmd := program(t, nil, append([]string{"dev", "--dir", dir}, args...)...)
		out, err := cmd.Output()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("sh", "-c", `psql -qXAt "$DATABASE_URL" -c "create table made (n int)" -c "select 1 + 1"`); out != "2\n" || code != 0 {
		t.Errorf("exit status %d and %q, want 0 and 2", code, out)
	}
	if out, code := run("--", "sh", "-c", `psql -qXAt "$DATABASE_URL" -c "select count(*) from made"; echo "$0 $1" --dir; exit 7`, "--first", "-v"); out != "0\n--first -v --dir\n" || code != 7 {
		t.Errorf("exit status %d and %q, want 7 and the table of before", code, out)
	}
	if out, code := run("/nowhere/command"); out != "" || code != 1 {
		t.Errorf("exit status %d and %q of a command that does not exist, want 1", code, out)
	}
}

// Ctrl-C ends the command first, which still has its database then.
func TestDevStopsItsCommand(t *testing.T) {
	t.Parallel()
	const ends = `trap 'psql -qXAt "$DATABASE_URL" -c "select 42"; exit 0' TERM; echo ready; while :; do sleep 0.1; done`
	cmd := program(t, nil, "dev", "--dir", filepath.Join(devDir(t), ".auditstream"), "sh", "-c", ends)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	testkit.NoError(t, err)
	testkit.NoError(t, cmd.Start())
	var said []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if said = append(said, lines.Text()); lines.Text() == "ready" {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil || strings.Join(said, " ") != "ready 42" {
		t.Errorf("%v, and it said %q, want status 0 and ready 42\n%s", err, said, stderr.String())
	}
}
