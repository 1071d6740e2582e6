package web

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// devServer is a running auditstream dev.
type devServer struct {
	url  string
	cmd  *exec.Cmd
	out  *harness.LogBuffer
	done chan struct{} // closed when the process has ended
}

// startDev runs auditstream dev in a directory of its own until the end of the test, and returns the page's address.
func startDev(t testing.TB) string {
	t.Helper()
	return runDev(t, t.TempDir(), "127.0.0.1:0").url
}

func runDev(t testing.TB, dir, addr string) *devServer {
	t.Helper()
	d := &devServer{out: harness.NewLogBuffer()}
	d.cmd = exec.Command(harness.Binary(t), "dev", "--dir", filepath.Join(dir, "dev"), "--http-addr", addr)
	d.cmd.Dir = dir
	d.cmd.Env = harness.Environment(nil)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.done = harness.StartProcess(t, d.cmd)
	t.Cleanup(func() { d.stop(t) })

	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/\n`)
	deadline := time.After(2 * harness.Patience) // the first run makes a database cluster
	for {
		changed := d.out.Changed()
		if d.url = strings.TrimSpace(address.FindString(d.out.String())); d.url != "" {
			return d
		}
		select {
		case <-changed:
		case <-d.done:
			t.Fatalf("auditstream dev has ended:\n%s", d.out.String())
		case <-deadline:
			t.Fatalf("auditstream dev prints no address:\n%s", d.out.String())
		}
	}
}

// stop ends dev as Ctrl-C does; it must exit with status 0. Stopping twice is once.
func (d *devServer) stop(t testing.TB) {
	t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	select {
	case <-d.done:
	case <-time.After(harness.Patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // a stack dump says where it hangs
		<-d.done
		t.Errorf("auditstream dev did not exit within %v", harness.Patience)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 || strings.Contains(d.out.String(), "DATA RACE") {
		t.Errorf("auditstream dev: exit status %d:\n%s", code, d.out.String())
	}
}
