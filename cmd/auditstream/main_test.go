package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"
)

const (
	// beProgram makes the test binary the program: a process of its own, with the race detector.
	beProgram = "AUDITSTREAM_TEST_BE_PROGRAM"
	// patience bounds every wait for something that must happen.
	patience   = 60 * time.Second
	testSecret = "a-key-for-tests-0123456789-abcdefghijk"
)

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
	}
	// The variables of the developer's own auditstream must not reach the tests.
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); ourEnv(name) {
			os.Unsetenv(name)
		}
	}
	pgtest.Main(m)
}

// program prepares the program to run in a process of its own, with the given variables in its environment.
func program(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	testkit.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), beProgram+"=1"), env...)
	return cmd
}

// result is the outcome of a command.
type result struct {
	code        int
	out, stderr string
}

// command runs a command to its end, within this process.
func command(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, stderr bytes.Buffer
	code := run(ctx, args, streams{&out, &stderr})
	return result{code, out.String(), stderr.String()}
}

// want fails the test unless the command ended with this status.
func (r result) want(t testing.TB, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit status %d, want %d\n%s%s", r.code, code, r.out, r.stderr)
	}
	return r
}

func mustContain(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func mustNotContain(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q in:\n%s", part, text)
		}
	}
}
