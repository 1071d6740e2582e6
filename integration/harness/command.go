package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// RunCommand runs the binary to its end and returns what it printed; it must succeed.
func RunCommand(t testing.TB, env []string, args ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := TryCommand(t, env, args...)
	if code != 0 {
		t.Fatalf("auditstream %s: exit status %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// TryCommand runs the binary to its end, however that turns out.
func TryCommand(t testing.TB, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path := CommandBinary(t) // which may have to be built, for longer than the time below
	ctx, cancel := context.WithTimeout(t.Context(), 2*Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = Environment(env)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	runErr := cmd.Run()
	if exit := new(exec.ExitError); runErr != nil && !errors.As(runErr, &exit) {
		t.Fatalf("run auditstream: %v", runErr)
	}
	own := OwnSecrets(cmd.Env, args)
	if len(args) == 0 || args[0] != "token" { // which prints one on purpose
		NoLeak(t, "the output of auditstream "+strings.Join(args, " "), out.String(), own)
	}
	NoLeak(t, "the error output of auditstream "+strings.Join(args, " "), err.String(), own)
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// Environment is ours without anything that would configure the binary, plus env.
func Environment(env []string) []string {
	var clean []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !configures(name) {
			clean = append(clean, entry)
		}
	}
	// The race detector makes a process wait for a second before it exits, which these tests would do hundreds of times.
	clean = append(clean, "GORACE=atexit_sleep_ms=10")
	return append(clean, env...)
}

func configures(name string) bool {
	for _, prefix := range []string{"PG", "SSE_", "JWT_", "DATABASE_", "HTTP_", "ADMIN_ADDR", "TLS_", "CORS_", "LOG_", "REDIS_", "OTEL_", "ACCESS_LOG", "AUDITSTREAM_ENV_FILE", "AUDITSTREAM_INSTALL", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
