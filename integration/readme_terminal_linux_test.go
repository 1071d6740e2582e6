package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// terminal is a bash into which a reader of a document types. What it says and what its commands say comes together.
type terminal struct {
	t     *testing.T
	dir   string
	typed io.WriteCloser
	log   *logBuffer
	cmd   *exec.Cmd
	done  chan struct{} // closed when bash and all that it has started have ended
	count int           // of what was typed
	begun int           // where in the log the output of the newest begins
}

// openTerminal starts a bash at the top of the tree, which is closed with all its processes when the test is over.
func openTerminal(t *testing.T) *terminal {
	t.Helper()
	dependsOn(t, ".ci", "Makefile")
	// ERR tells of any command that fails, also between others; EXIT ends what runs in the background, even when the test
	// was killed.
	const manners = `set -E; trap 'echo "readme: failed: $BASH_COMMAND" >&2' ERR
trap 'trap "" TERM; trap - EXIT; kill 0' EXIT
unset MAKEFLAGS MAKELEVEL MFLAGS
`
	w := &terminal{t: t, dir: t.TempDir(), log: newLogBuffer()}
	w.cmd = exec.Command("bash", "--norc")
	w.cmd.Dir, w.cmd.Env = repoPath("."), environment(nil)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	typed, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.typed = typed
	w.done = startProcess(t, w.cmd)
	t.Cleanup(func() {
		w.close()
		if t.Failed() {
			t.Logf("the terminal's output:\n%s", w.log.String())
		}
	})
	w.write(manners)
	return w
}

func (w *terminal) write(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w.typed, text); err != nil {
		w.t.Fatalf("bash: %v\n%s", err, w.log.String())
	}
}

// close hangs up; whatever still runs is told to end, and must.
func (w *terminal) close() {
	w.t.Helper()
	_ = w.typed.Close()
	// Twice would do no harm; bash itself may wait for a command in the foreground.
	if err := syscall.Kill(-w.cmd.Process.Pid, syscall.SIGTERM); err != nil && err != syscall.ESRCH {
		w.t.Error(err)
	}
	select {
	case <-w.done:
	case <-time.After(patience):
		_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
		<-w.done
		w.t.Errorf("what was started in the terminal has not ended at SIGTERM:\n%s", w.log.String())
	}
}

// begin types a text as it stands.
func (w *terminal) begin(text string) {
	w.t.Helper()
	w.count++
	file := filepath.Join(w.dir, fmt.Sprint("typed-", w.count))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.begun = len(w.log.String())
	// From a file, so that a command that reads its input does not read the next one.
	w.write(fmt.Sprintf(". '%s'; echo 'readme: done %d'\n", file, w.count))
}

// end waits until the newest text's commands have ended, all with status 0, and returns what they have said.
func (w *terminal) end() string {
	w.t.Helper()
	return w.says(fmt.Sprintf("readme: done %d\n", w.count))
}

// run is begin and end.
func (w *terminal) run(text string) string {
	w.t.Helper()
	w.begin(text)
	return w.end()
}

// says waits until the newest text's commands have said all of it, in whatever order, and returns what they have.
func (w *terminal) says(wants ...string) string {
	w.t.Helper()
	deadline := time.After(2 * patience)
	for {
		changed := w.log.changed()
		out := w.log.String()[w.begun:]
		if strings.Contains(out, "readme: failed: ") {
			w.t.Fatalf("a command of the document fails:\n%s", out)
		}
		missing := ""
		for _, want := range wants {
			if !strings.Contains(out, want) {
				missing = want
			}
		}
		if missing == "" {
			return out
		}
		select {
		case <-changed:
		case <-w.done:
			w.t.Fatalf("the terminal has ended and not said %q:\n%s", missing, out)
		case <-deadline:
			w.t.Fatalf("the terminal does not say %q:\n%s", missing, out)
		}
	}
}
