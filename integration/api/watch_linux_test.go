package api

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"auditstream/integration/harness"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestAPIWatchInATerminal follows two audits with the program in a terminal of its own, and stops it by Ctrl-C.
func TestAPIWatchInATerminal(t *testing.T) {
	t.Parallel()
	db, i := harness.ServeNew(t, noSafetyNet)
	ids := db.InsertMany(t, 2)
	cmd := exec.Command(harness.Binary(t), append([]string{"watch"}, ids...)...)
	cmd.Env = harness.Environment([]string{"AUDITSTREAM_URL=" + i.URL, "AUDITSTREAM_TOKEN=" + harness.AliceToken(t), "TERM=xterm"})
	master, tty, err := pty.Open()
	harness.NoError(t, err)
	defer master.Close()
	harness.NoError(t, pty.Setsize(master, &pty.Winsize{Cols: 100, Rows: 24}))
	before := modes(t, tty)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	harness.NoError(t, cmd.Start())
	shown := new(harness.RawBody)
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(shown, master) }) // fails when nobody has the terminal open any more
	wait := func(want string) {
		t.Helper()
		harness.WaitIn(t, shown.String, want)
	}
	wait("  0 %")
	i.WaitMetric(t, "auditstream_streams_open", func(open float64) bool { return open == 1 }) // for both; bars are there before it is
	db.SQL(t, "update audits set progress = 55, message = 'Running competitor analysis...' where id = "+ids[1])
	wait("55 %  ")
	wait("Running competitor analysis...")
	db.SQL(t, "update audits set status = 'completed', progress = 100 where id = "+ids[0])
	wait("✓ completed")
	if _, err := master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the status says how it went
	harness.Equal(t, cmd.ProcessState.ExitCode(), 1, "exit status after Ctrl-C")
	wait("audit " + ids[1] + ": stopped before the end\r\n")
	if after := modes(t, tty); !bytes.Equal(before, after) {
		t.Errorf("the terminal's modes were changed from %x to %x", before, after)
	}
	_ = tty.Close()
	reading.Wait()
	text := shown.String()
	t.Logf("at the end:\n%s", text[strings.LastIndex(text, "\x1b[J")+len("\x1b[J"):])
	harness.WantNoneIn(t, text, "\x1b[?")
}

func modes(t *testing.T, tty *os.File) []byte {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	harness.NoError(t, err)
	var b bytes.Buffer
	for _, flag := range []uint32{state.Iflag, state.Oflag, state.Cflag, state.Lflag} {
		for shift := 0; shift < 32; shift += 8 {
			b.WriteByte(byte(flag >> shift))
		}
	}
	b.Write(state.Cc[:])
	return b.Bytes()
}
