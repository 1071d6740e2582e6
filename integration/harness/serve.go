package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Instance is a running auditstream serve.
type Instance struct {
	URL   string // of the API
	Admin string // of the metrics
	Cmd   *exec.Cmd
	Log   *LogBuffer
	Done  chan struct{} // closed when the process has ended

	Traffic *Traffic
}

// Serve starts an instance on free ports and waits until it serves. It is stopped at the end of the test, and must then
// have exited with status 0 and without a data race; a test that ends it otherwise calls End. What begins with -- is a flag.
func Serve(t testing.TB, databaseURL string, env ...string) *Instance {
	t.Helper()
	return ServeBinary(t, Binary(t), databaseURL, env...)
}

// ServeReady is Serve, until notifications are heard.
func ServeReady(t testing.TB, databaseURL string, env ...string) *Instance {
	t.Helper()
	i := Serve(t, databaseURL, env...)
	i.WaitReady(t, "up")
	return i
}

// ServeNew is ServeReady with a database of its own, empty but for the table.
func ServeNew(t testing.TB, env ...string) (Database, *Instance) {
	t.Helper()
	db := NewDatabase(t)
	return db, ServeReady(t, db.Serve, env...)
}

// ServeFirst is ServeReady with a database of its own, whose audit 1 is that of FirstEvent.
func ServeFirst(t testing.TB, env ...string) (Database, *Instance) {
	t.Helper()
	db := NewFirstAuditDatabase(t)
	return db, ServeReady(t, db.Serve, env...)
}

// ServeBinary is Serve with a binary of the test's choice.
func ServeBinary(t testing.TB, path, databaseURL string, env ...string) *Instance {
	t.Helper()
	i, scheme := BeginServe(t, path, databaseURL, env...)
	i.serves(t, scheme)
	return i
}

// serves waits until the instance serves; from then on its answers are judged.
func (i *Instance) serves(t testing.TB, scheme string) {
	t.Helper()
	serving := i.WaitLog(t, "serving")
	i.URL = scheme + serving["addr"].(string)
	i.Admin = "http://" + serving["admin_addr"].(string)
	i.record(t)
}

// BeginServe is ServeBinary for an instance that does not serve yet, or never will; scheme is how its URL begins.
func BeginServe(t testing.TB, path, databaseURL string, env ...string) (i *Instance, scheme string) {
	t.Helper()
	i, scheme = start(t, path, append([]string{"DATABASE_URL=" + databaseURL, "LOG_LEVEL=debug"}, env...))
	t.Cleanup(func() {
		ended := i.keepsSecrets(t)
		i.Stop(t)
		ended()
		i.showLog(t)
	})
	return i, scheme
}

// start runs serve with free ports; what ends it is the caller's.
func start(t testing.TB, path string, env []string) (i *Instance, scheme string) {
	t.Helper()
	i = &Instance{Log: NewLogBuffer()}
	i.Cmd = exec.Command(path, "serve")
	for k, e := range slices.Backward(env) {
		if strings.HasPrefix(e, "--") {
			i.Cmd.Args = append(i.Cmd.Args, e)
			env = slices.Delete(slices.Clone(env), k, k+1)
		}
	}
	env, scheme = withTLS(t, env)
	i.Cmd.Env = Environment(append([]string{
		"JWT_SECRET=" + JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "SSE_MAX_STREAMS_PER_USER=0",
	}, env...))
	i.Cmd.Stderr = i.Log
	i.Done = StartProcess(t, i.Cmd)
	return i, scheme
}

// Signal sends a signal to the instance, if it still runs.
func (i *Instance) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := i.Cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
}

// End waits for the process to end and returns its exit status; -1 after SIGKILL.
func (i *Instance) End(t testing.TB) int {
	t.Helper()
	select {
	case <-i.Done:
	case <-time.After(Patience):
		_ = i.Cmd.Process.Signal(syscall.SIGQUIT) // a stack dump says where it hangs
		<-i.Done
		t.Errorf("auditstream serve did not exit within %v:\n%s", Patience, i.Log.String())
	}
	if strings.Contains(i.Log.String(), "DATA RACE") {
		t.Errorf("data race:\n%s", i.Log.String())
	}
	return i.Cmd.ProcessState.ExitCode()
}

// Stop ends the instance as its operator does, which it must do well.
func (i *Instance) Stop(t testing.TB) {
	t.Helper()
	i.Signal(t, syscall.SIGTERM)
	if code := i.End(t); code != 0 {
		t.Errorf("auditstream serve: exit status %d after SIGTERM, want 0", code)
	}
}

// WaitReady waits until /readyz answers 200 and says how changes arrive: "up" or "polling".
func (i *Instance) WaitReady(t testing.TB, listener string) {
	t.Helper()
	i.WaitAnswer(t, "/readyz", 200, fmt.Sprintf(`{"status":"ready","database":"up","listener":%q}`, listener))
}

// Launch starts an instance from any binary, for tests that end it in their own way: at the end it is killed.
func Launch(t testing.TB, path, databaseURL string, env ...string) *Instance {
	t.Helper()
	i, scheme := start(t, path, append([]string{"DATABASE_URL=" + databaseURL}, env...))
	t.Cleanup(func() {
		ended := i.keepsSecrets(t)
		i.Signal(t, syscall.SIGKILL)
		<-i.Done
		ended()
		i.showLog(t)
	})
	i.serves(t, scheme)
	return i
}
