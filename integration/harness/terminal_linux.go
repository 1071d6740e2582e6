package harness

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

// Terminal is a bash into which a reader of a document types. What it says and what its commands say comes together.
type Terminal struct {
	t     *testing.T
	dir   string
	typed io.WriteCloser
	log   *LogBuffer
	cmd   *exec.Cmd
	done  chan struct{} // closed when bash and all that it has started have ended
	count int           // of what was typed
	begun int           // where in the log the output of the newest begins
}

// OpenTerminal starts a bash at the top of the tree, which is closed with all its processes when the test is over.
func OpenTerminal(t *testing.T) *Terminal {
	t.Helper()
	DependsOn(t, ".ci", "Makefile")
	// ERR tells of any command that fails, also between others; EXIT ends what runs in the background, even when the test
	// was killed.
	const manners = `set -E; trap 'echo "readme: failed: $BASH_COMMAND" >&2' ERR
trap 'trap "" TERM; trap - EXIT; kill 0' EXIT
unset MAKEFLAGS MAKELEVEL MFLAGS
`
	w := &Terminal{t: t, dir: t.TempDir(), log: NewLogBuffer()}
	w.cmd = exec.Command("bash", "--norc")
	w.cmd.Dir, w.cmd.Env = Path("."), Environment(nil)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	typed, err := w.cmd.StdinPipe()
	NoError(t, err)
	w.typed = typed
	w.done = StartProcess(t, w.cmd)
	t.Cleanup(func() {
		w.Close()
		if t.Failed() {
			t.Logf("the terminal's output:\n%s", w.log.String())
		}
	})
	w.write(manners)
	return w
}

func (w *Terminal) write(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w.typed, text); err != nil {
		w.t.Fatalf("bash: %v\n%s", err, w.log.String())
	}
}

// Close hangs up; whatever still runs is told to end, and must.
func (w *Terminal) Close() {
	w.t.Helper()
	_ = w.typed.Close()
	// Twice would do no harm; bash itself may wait for a command in the foreground.
	if err := syscall.Kill(-w.cmd.Process.Pid, syscall.SIGTERM); err != nil && err != syscall.ESRCH {
		w.t.Error(err)
	}
	select {
	case <-w.done:
	case <-time.After(Patience):
		_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
		<-w.done
		w.t.Errorf("what was started in the terminal has not ended at SIGTERM:\n%s", w.log.String())
	}
}

// Begin types a text as it stands.
func (w *Terminal) Begin(text string) {
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

// End waits until the newest text's commands have ended, all with status 0, and returns what they have said.
func (w *Terminal) End() string {
	w.t.Helper()
	return w.Says(fmt.Sprintf("readme: done %d\n", w.count))
}

// Type is Begin and End.
func (w *Terminal) Type(text string) string {
	w.t.Helper()
	w.Begin(text)
	return w.End()
}

// Says waits until the newest text's commands have said all of it, in whatever order, and returns what they have.
func (w *Terminal) Says(wants ...string) string {
	w.t.Helper()
	deadline := time.After(2 * Patience)
	for {
		changed := w.log.Changed()
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
