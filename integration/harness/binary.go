package harness

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// BuildProgram makes a program in bin/ from a package, as go build names it in a folder, and returns its path. Several test processes do
// this at a time: one builds while the others wait for it, and what runs already stays as it is.
func BuildProgram(name, dir, pkg string, flags ...string) (string, error) {
	path, err := Path("bin/"+name), os.Mkdir(Path("bin"), 0o755)
	if err != nil && !os.IsExist(err) {
		return "", err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()

	// Over a copy of the old one, which go build leaves alone where nothing has changed. By cp, because go test would remember what
	// this process has read.
	fresh := path + ".new"
	_ = exec.Command("cp", "-p", path, fresh).Run() // there may be no old one
	cmd := exec.Command("go", append(append([]string{"build", "-o", fresh}, flags...), pkg)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := noteSources(dir, pkg); err != nil {
		return "", fmt.Errorf("sources of %s: %w", name, err)
	}
	return path, os.Rename(fresh, path)
}

// noteSources has go test know that the result depends on a program: it sees which files a test asks for, and not which ones it
// builds from. Otherwise it would take a result for a newer program's.
func noteSources(dir, pkg string) error {
	cmd := exec.Command("go", "list", "-deps", "-f", `{{if and .Module .Module.Main}}{{$dir := .Dir}}{{.Module.GoMod}}
{{range .GoFiles}}{{$dir}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$dir}}/{{.}}
{{end}}{{end}}`, pkg)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	for file := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return r == '\n' }) {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	return nil
}

// lockFile waits until no other process has the lock. The lock ends with its process, however that ends.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = file.Close() }, nil
}

// raced are the tests whose servers run under the race detector, which costs them several times the processor time: those of
// the API, of faults and of hostile clients, in which a server does all that it does at once. Once is enough: over HTTP/2 these tests
// run without, and so do commands, of which most do one thing after the other. make test-race has all of it.
var raced = regexp.MustCompile(`^(Test|Benchmark)(API|Chaos|Fault|Hostile|Pitfall|Security|Update)`)

// Binary builds the program once, for the tests above with the race detector, and returns its path. With
// AUDITSTREAM_TEST_RACE=all every test has it, with none no test.
func Binary(t testing.TB) string {
	t.Helper()
	build := buildPlain
	switch kind := os.Getenv("AUDITSTREAM_TEST_RACE"); {
	case kind != "" && kind != "all" && kind != "none":
		t.Fatalf("AUDITSTREAM_TEST_RACE is %q: want all, none or nothing", kind)
	case kind == "all" || kind == "" && raced.MatchString(t.Name()) && !OverHTTP2(t):
		build = buildRace
	}
	return built(t, build)
}

// CommandBinary is the program for what is not a server.
func CommandBinary(t testing.TB) string {
	t.Helper()
	if os.Getenv("AUDITSTREAM_TEST_RACE") == "all" {
		return Binary(t)
	}
	return PlainBinary(t)
}

func built(t testing.TB, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	NoError(t, err)
	return path
}

// PlainBinary builds the program as users run it, once, for tests of memory: under the race detector each goroutine and
// each byte costs several times as much.
func PlainBinary(t testing.TB) string {
	t.Helper()
	return built(t, buildPlain)
}

var (
	buildRace = sync.OnceValues(func() (string, error) {
		return BuildProgram("auditstream-race", Path("."), "./cmd/auditstream", "-race")
	})
	buildPlain = sync.OnceValues(func() (string, error) { return BuildProgram("auditstream-plain", Path("."), "./cmd/auditstream") })
)
