// Package integration tests the built binary from outside: environment variables, HTTP, SQL through psql, and signals.
// The one rule: nothing of ours is linked in but test helpers, so what passes here holds for users.
package integration

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"sync"
	"testing"

	"auditstream/internal/pgtest"
)

func TestMain(m *testing.M) {
	remove, err := prepareHTTP2()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.DefaultClient.Transport = recorded{http.DefaultTransport}
	pgtest.Main(m, remove)
}

// raced are the tests whose servers run under the race detector, which costs them several times the processor time: those of
// the API, of faults and of hostile clients, in which a server does all that it does at once. Once is enough: over HTTP/2 these tests
// run without, and so do commands, of which most do one thing after the other. make test-race has all of it.
var raced = regexp.MustCompile(`^(Test|Benchmark)(API|Chaos|Fault|Hostile|Pitfall|Security|Update)`)

// binary builds the program once, for the tests above with the race detector, and returns its path. With
// AUDITSTREAM_TEST_RACE=all every test has it, with none no test.
func binary(t testing.TB) string {
	t.Helper()
	build := buildPlain
	switch kind := os.Getenv("AUDITSTREAM_TEST_RACE"); {
	case kind != "" && kind != "all" && kind != "none":
		t.Fatalf("AUDITSTREAM_TEST_RACE is %q: want all, none or nothing", kind)
	case kind == "all" || kind == "" && raced.MatchString(t.Name()) && !overHTTP2(t):
		build = buildRace
	}
	return built(t, build)
}

// commandBinary is the program for what is not a server.
func commandBinary(t testing.TB) string {
	t.Helper()
	if os.Getenv("AUDITSTREAM_TEST_RACE") == "all" {
		return binary(t)
	}
	return plainBinary(t)
}

func built(t testing.TB, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// plainBinary builds the program as users run it, once, for tests of memory: under the race detector each goroutine and
// each byte costs several times as much.
func plainBinary(t testing.TB) string {
	t.Helper()
	return built(t, buildPlain)
}

var (
	buildRace  = sync.OnceValues(func() (string, error) { return build("auditstream-race", repoPath("."), "./cmd/auditstream", "-race") })
	buildPlain = sync.OnceValues(func() (string, error) { return build("auditstream-plain", repoPath("."), "./cmd/auditstream") })
)
