package pgtest

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"auditstream/internal/localpg"
)

// Psql runs SQL in a psql process, like another application, and returns its output: unaligned rows without headings. The first error fails
// the test.
func Psql(tb testing.TB, dsn, sql string) string {
	tb.Helper()
	path, err := psql()
	if err != nil {
		tb.Fatalf("pgtest: psql is needed: install PostgreSQL's client programs: %v", err)
	}
	cmd := exec.CommandContext(tb.Context(), path, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", "-")
	cmd.Stdin = strings.NewReader(sql) // not -c, which runs all statements in one transaction; -f says in which line an error is
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("pgtest: psql: %v: %s", err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(string(out))
}

// psql looks first in the directory of the server's programs, because Debian's psql in PATH is a Perl wrapper that takes longer than psql.
var psql = sync.OnceValues(func() (string, error) {
	var beside []string
	if dir, err := localpg.FindBinaries(context.Background()); err == nil {
		beside = append(beside, filepath.Join(dir, "psql"))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql") // its only error is a bad pattern
	for _, path := range append(beside, debian...) {
		if path, err := exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath("psql")
})
