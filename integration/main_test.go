// Package integration tests the built binary from outside: environment variables, HTTP, SQL through psql, and signals.
// The one rule: nothing of ours is linked in but test helpers, so what passes here holds for users.
package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"auditstream/integration/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// binary builds the program with the race detector, once, and returns its path.
func binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../bin/auditstream-race")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-race", "-o", path, "../cmd/auditstream")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the binary: %w", err)
	}
	return path, nil
})
