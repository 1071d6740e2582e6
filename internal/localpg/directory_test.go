package localpg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/testkit"
)

// ownServer is the helper process: it starts a server, prints where, and stops it when its standard input ends.
func ownServer(dir string) error {
	ctx := context.Background()
	s, err := Start(ctx, fast(dir))
	if err != nil {
		return err
	}
	fmt.Println(s.PID(), s.DSN("postgres"))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Stop(ctx)
}

type helper struct {
	cmd   *exec.Cmd
	stdin io.Closer
	pid   int // of the postmaster
}

func startHelper(t *testing.T, cmd *exec.Cmd, dir string) helper {
	t.Helper()
	cmd.Env = append(cmd.Environ(), "LOCALPG_TEST_OWNER="+dir)
	stdin, err := cmd.StdinPipe()
	testkit.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	testkit.NoError(t, err)
	testkit.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("helper: %v", err)
	}
	first, _, _ := strings.Cut(line, " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("helper says %q", line)
	}
	return helper{cmd, stdin, pid}
}

// own gives a file to the account that PostgreSQL runs as, and returns that.
func own(t *testing.T, path string) account {
	t.Helper()
	a, err := chooseAccount()
	testkit.NoError(t, err)
	testkit.NoError(t, a.chown(path))
	return a
}

func TestOrdinaryUserOwnsAServer(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	account := own(t, dir)
	// Where go test puts the binary is closed to others.
	binary := filepath.Join(dir, "localpg.test")
	content, err := os.ReadFile(os.Args[0])
	testkit.NoError(t, err)
	testkit.WriteProgram(t, binary, content)
	cmd := account.command(t.Context(), binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account.credential}
	h := startHelper(t, cmd, filepath.Join(dir, "server"))
	testkit.NoError(t, h.stdin.Close())
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("helper: %v", err)
	}
}

func TestKilledOwnerIsRecoveredFrom(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	h := startHelper(t, exec.CommandContext(t.Context(), os.Args[0]), dir)
	testkit.NoError(t, h.cmd.Process.Kill())
	_ = h.cmd.Wait() // it was killed
	if runtime.GOOS == "linux" {
		gone, err := waitGone(t.Context(), 20*time.Second, func() (bool, error) { return allGone([]procInfo{{pid: h.pid}}) })
		if err != nil || !gone {
			t.Errorf("the server did not die with its owner: %v", err)
		}
	}
	s := start(t, fast(dir))
	testkit.Equal(t, query(t, s, "select 'there'"), "there", "the server")
}

// abandon leaves a server running and its directory unlocked, as on a system without a signal at our death.
func abandon(t *testing.T, s *Server) {
	t.Helper()
	testkit.NoError(t, s.lock.Close())
	s.lock = nil
}

func TestOrphanIsStopped(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"running", "paused", "crashed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			orphan := start(t, fast(dir))
			pid := orphan.PID()
			switch name {
			case "paused":
				testkit.NoError(t, orphan.Pause())
			case "crashed": // and its children not yet aware of it
				testkit.NoError(t, orphan.signal(syscall.SIGKILL))
			}
			abandon(t, orphan)
			s := start(t, fast(dir))
			if orphan.PID() != 0 && allAlive(pid) {
				t.Errorf("process %d still runs", pid)
			}
			testkit.Equal(t, query(t, s, "select 'there'"), "there", "the server")
		})
	}
}

func allAlive(pid int) bool {
	gone, err := allGone([]procInfo{{pid: pid}})
	return err != nil || !gone
}

func TestSecondRunRefuses(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := start(t, fast(dir))
	_, err := Start(t.Context(), fast(dir))
	if err == nil || !strings.Contains(err.Error(), "in use by another run (process "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("got %v, want a refusal that names the process", err)
	}
	testkit.Equal(t, query(t, s, "select 'there'"), "there", "the server")
}

func TestHalfFinishedInitdbIsRedone(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	leftover := filepath.Join(dir, "initdb-123", "data", "base")
	testkit.NoError(t, os.MkdirAll(leftover, 0o700))
	start(t, fast(dir))
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Errorf("the leftover is still there: %v", err)
	}
}

func TestUnusableDataIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, file, text, want string }{
		{"other version", "PG_VERSION", "9.6\n", "was made by PostgreSQL 9.6"},
		{"no data directory", "diary.txt", "dear diary", "is not a PostgreSQL data directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			data := filepath.Join(dir, "data")
			testkit.NoError(t, os.Mkdir(data, 0o700))
			file := filepath.Join(data, tt.file)
			testkit.NoError(t, os.WriteFile(file, []byte(tt.text), 0o600))
			own(t, data)
			if _, err := Start(t.Context(), fast(dir)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(file); err != nil {
				t.Error(err)
			}
		})
	}
}

// The process id in a stale postmaster.pid may belong to another program by now, and PostgreSQL would refuse to start.
func TestRecycledPIDIsDealtWith(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := start(t, fast(dir))
	stop(t, s)

	account := own(t, s.data())
	stranger := account.command(t.Context(), "sleep", "600")
	runtime.LockOSThread() // see sysProcAttr
	defer runtime.UnlockOSThread()
	testkit.NoError(t, stranger.Start())
	defer func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	}()
	path := filepath.Join(s.data(), "postmaster.pid")
	text := fmt.Sprintf("%d\n%s\n1\n5432\n\n127.0.0.1\n0 0\nready\n", stranger.Process.Pid, s.data())
	testkit.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	own(t, path)
	start(t, fast(dir))
	if !allAlive(stranger.Process.Pid) {
		t.Error("the stranger was stopped")
	}
}

func TestSweepTakesTheAbandonedOnly(t *testing.T) {
	t.Parallel()
	parent := tempDir(t)
	testkit.NoError(t, makeEnterable(parent))
	dirs := map[string]string{}
	for _, name := range []string{"abandoned", "held", "fresh"} {
		dir := filepath.Join(parent, name)
		dirs[name] = dir
		s := start(t, Config{Dir: dir, Settings: map[string]string{"fsync": "off"}})
		if name != "held" {
			abandon(t, s)
		}
		left := time.Now() // to start a server and to stop it may have taken long
		if name != "fresh" {
			left = left.Add(-2 * sweepAge)
		}
		testkit.NoError(t, os.Chtimes(filepath.Join(dir, "lock"), left, left))
	}
	testkit.NoError(t, Sweep(t.Context(), filepath.Join(parent, "*")))
	for name, dir := range dirs {
		_, err := os.Stat(dir)
		if gone := os.IsNotExist(err); gone != (name == "abandoned") {
			t.Errorf("%s: gone is %v", name, gone)
		}
	}
}
