package integration

import (
	"os/exec"
	"testing"
)

// startProcess starts a program. The channel is closed when it has ended, however it did; then its status is in cmd.ProcessState.
func startProcess(t testing.TB, cmd *exec.Cmd) (ended chan struct{}) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return ended
}
