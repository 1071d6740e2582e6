package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/server/web"
	"auditstream/internal/testkit"
)

// devDir returns an empty directory that PostgreSQL's account can enter, also if root runs the tests.
func devDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	testkit.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	t.Cleanup(func() { // it went elsewhere all the same
		if home, err := os.ReadFile(filepath.Join(dir, ".auditstream", "location")); err == nil {
			_ = os.RemoveAll(strings.TrimSpace(string(home)))
		}
	})
	return dir
}

// devProcess is a running auditstream dev.
type devProcess struct {
	cmd    *exec.Cmd
	screen string       // standard output until it serves
	stderr bytes.Buffer // once done is closed
	done   chan struct{}
}

func startDev(t *testing.T, dir string) *devProcess {
	t.Helper()
	d := &devProcess{cmd: program(t, nil, "dev", "--http-addr=127.0.0.1:0"), done: make(chan struct{})}
	d.cmd.Dir = dir
	d.cmd.Stderr = &d.stderr
	stdout, err := d.cmd.StdoutPipe()
	testkit.NoError(t, err)
	testkit.NoError(t, d.cmd.Start())
	ready := make(chan string, 1)
	go func() {
		defer close(d.done)
		var screen strings.Builder
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			screen.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "Ctrl-C") {
				ready <- screen.String()
			}
		}
		_ = d.cmd.Wait() // how it ended is looked at in end
	}()
	t.Cleanup(func() {
		d.signal(t, os.Interrupt)
		d.end(t)
	})
	select {
	case d.screen = <-ready:
	case <-d.done:
		t.Fatalf("dev has ended: %v\n%s", d.cmd.ProcessState, d.stderr.String())
	case <-time.After(2 * patience): // initdb on a busy machine
		t.Fatal("dev does not serve")
	}
	return d
}

// signal sends a signal, if it still runs.
func (d *devProcess) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
}

// stop sends a signal, and fails the test unless dev ends with status 0.
func (d *devProcess) stop(t *testing.T, sig os.Signal) {
	t.Helper()
	d.signal(t, sig)
	if code := d.end(t); code != exitDone {
		t.Errorf("exit status %d after %v, want 0\n%s", code, sig, d.stderr.String())
	}
}

// end waits and returns the exit status.
func (d *devProcess) end(t *testing.T) int {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // a stack dump says where it hangs
		<-d.done
		t.Errorf("dev did not stop:\n%s", d.stderr.String())
	}
	return d.cmd.ProcessState.ExitCode()
}

// line returns the line on the screen that starts with the command.
func (d *devProcess) line(t *testing.T, command string) string {
	t.Helper()
	for line := range strings.Lines(d.screen) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, command+" ") {
			return line
		}
	}
	t.Fatalf("no line with %s on the screen:\n%s", command, d.screen)
	return ""
}

func (d *devProcess) database(t *testing.T) string {
	t.Helper()
	return regexp.MustCompile(`postgres://[^"]+`).FindString(d.line(t, "psql"))
}

// postgres returns the processes of the private server.
func (d *devProcess) postgres(t *testing.T) []int {
	t.Helper()
	lines := pgtest.Psql(t, d.database(t), `
		select pid from pg_stat_activity where pid <> pg_backend_pid()
		union all select (string_to_array(pg_read_file('postmaster.pid'), E'\n'))[1]::int`)
	var pids []int
	for _, line := range strings.Fields(lines) {
		pid, err := strconv.Atoi(line)
		testkit.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}

func checkGone(t *testing.T, pids []int) {
	t.Helper()
	if len(pids) < 2 {
		t.Fatalf("only %d processes to look for", len(pids))
	}
	testkit.Eventually(t, fmt.Sprint("PostgreSQL's processes are gone: ", pids), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	})
}

var pageLine = regexp.MustCompile(`(?m)^ +(http://\S+/)$`)

func (d *devProcess) checkPage(t *testing.T) {
	t.Helper()
	found := pageLine.FindStringSubmatch(d.screen)
	if found == nil {
		t.Fatalf("no address on the screen:\n%s", d.screen)
	}
	mustContain(t, get(t, found[1]), "<!doctype html>", `<a href="/docs/">`)
	mustContain(t, get(t, found[1]+"docs/"), "<title>Start - auditstream</title>")
	var page web.Dev
	testkit.NoError(t, json.Unmarshal([]byte(get(t, found[1]+"dev.json")), &page))
	if len(page.Audits) < len(devWorkers)+1 || !page.Actions || page.ByHand != 1 || page.User != devUser || page.SQL != d.line(t, "psql") {
		t.Errorf("dev.json: %+v", page)
	}
	for _, audit := range page.Audits {
		mustContain(t, get(t, fmt.Sprintf("%sapi/v1/audits/%d/status", found[1], audit.ID), page.Token), `"status":`)
	}
}

// get returns the body of an answer 200, asked for with a token if one is given.
func get(t *testing.T, url string, token ...string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	testkit.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+strings.Join(token, ""))
	resp, err := http.DefaultClient.Do(req)
	testkit.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	testkit.NoError(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", url, resp.Status, body)
	}
	return string(body)
}

func bash(t *testing.T, dir, line string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
	cmd.Dir = dir
	return cmd
}

// runShell runs a line as pasted, to its end, and returns what it prints.
func runShell(t *testing.T, dir, line string) string {
	t.Helper()
	out, err := bash(t, dir, line).Output()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(string(out))
}

// follower is a pasted line that keeps printing events.
type follower struct{ lines *bufio.Scanner }

func shell(t *testing.T, dir, line string) follower {
	t.Helper()
	cmd := bash(t, dir, "exec "+line) // so that it is curl that is ended
	out, err := cmd.StdoutPipe()
	testkit.NoError(t, err)
	testkit.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	return follower{bufio.NewScanner(out)}
}

// data returns the next event's data; the test binary's time limit bounds the wait.
func (f follower) data(t *testing.T) string {
	t.Helper()
	for f.lines.Scan() {
		if data, ok := strings.CutPrefix(f.lines.Text(), "data: "); ok {
			return data
		}
	}
	t.Fatal("the stream has ended")
	return ""
}
