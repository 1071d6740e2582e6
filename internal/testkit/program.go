package testkit

import (
	"os"
	"syscall"
	"testing"
)

// WriteProgram makes a file that can be run. While it is written nothing is started: a process that is forked then has the file open for
// writing until its own exec, and Linux does not run such a file (ETXTBSY, https://go.dev/issue/22315).
func WriteProgram(tb testing.TB, path string, content []byte) {
	tb.Helper()
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, content, 0o755)
	syscall.ForkLock.RUnlock()
	NoError(tb, err)
}
