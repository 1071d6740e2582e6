package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldestVersion is the first major version that has everything that our SQL uses.
const oldestVersion = 14

// binaries is one installation of PostgreSQL.
type binaries struct {
	dir     string
	version string // "15.18"
	major   int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// FindBinaries returns the directory of PostgreSQL's server programs (initdb and postgres), version 14 or later. It
// looks in PATH, asks pg_config, and then searches where the packages of Debian, Fedora and macOS put them, newest
// version first. The error says what to install.
func FindBinaries(ctx context.Context) (string, error) {
	b, err := findBinaries(ctx)
	return b.dir, err
}

func findBinaries(ctx context.Context) (binaries, error) {
	var refused []string
	for _, dir := range candidates(ctx) {
		b, err := inspectDir(ctx, dir)
		if ctx.Err() != nil {
			return binaries{}, fmt.Errorf("localpg: find PostgreSQL: %w", ctx.Err())
		}
		if err == nil {
			return b, nil
		}
		if _, statErr := os.Stat(filepath.Join(dir, "postgres")); statErr == nil {
			refused = append(refused, err.Error())
		}
	}
	found := ""
	if len(refused) > 0 {
		found = " (found, but of no use: " + strings.Join(refused, "; ") + ")"
	}
	return binaries{}, fmt.Errorf("localpg: no PostgreSQL %d or later on this machine%s; install it with "+
		"`apt install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora) or "+
		"`brew install postgresql@17` (macOS)", oldestVersion, found)
}

// candidates lists the directories to look in, the user's own choice (PATH) first.
func candidates(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Debian users link single programs into PATH; the other programs are beside the link's target.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		matches, _ := filepath.Glob(pattern) // its only error is a bad pattern
		slices.SortFunc(matches, func(a, b string) int { return firstNumber(b) - firstNumber(a) })
		dirs = append(dirs, matches...)
	}
	// Fedora's package has no directory of its own for a version.
	return append(dirs, "/usr/bin", "/usr/local/bin")
}

var (
	number      = regexp.MustCompile(`[0-9]+`)
	versionLine = regexp.MustCompile(`PostgreSQL\) ((\d+)\S*)`)
)

func firstNumber(path string) int {
	n, _ := strconv.Atoi(number.FindString(path)) // none ("latest") sorts last
	return n
}

func inspectDir(ctx context.Context, dir string) (binaries, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return binaries{}, fmt.Errorf("%s has no initdb", dir)
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return binaries{}, fmt.Errorf("%s/postgres --version: %w", dir, err)
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return binaries{}, fmt.Errorf("%s/postgres --version says %q", dir, strings.TrimSpace(string(out)))
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return binaries{}, fmt.Errorf("%s/postgres --version: %w", dir, err)
	}
	if major < oldestVersion {
		return binaries{}, fmt.Errorf("%s is version %s", dir, m[1])
	}
	return binaries{dir: dir, version: m[1], major: major}, nil
}
