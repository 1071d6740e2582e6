package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// module makes a module with a test that passes, one with a failing subtest, one that panics, and a package that does not compile.
func module(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                  "module example\n",
		"good/good_test.go":       "package good\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"nobody needs this\") }\n",
		"bad/bad_test.go":         "package bad\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"nobody needs this\") }\n\nfunc TestBad(t *testing.T) {\n\tt.Run(\"a (part)\", func(t *testing.T) { t.Error(\"what went wrong\") })\n}\n",
		"panics/panics_test.go":   "package panics\n\nimport \"testing\"\n\nfunc TestPanics(t *testing.T) { panic(\"the reason\") }\n",
		"broken/broken_test.go":   "package broken\n\nfunc TestBroken(t *testing.T) {}\n",
		"leaves/leaves_test.go":   "package leaves\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) {\n\tm.Run()\n\tfmt.Println(\"something is left\")\n\tos.Exit(3)\n}\n\nfunc TestGood(t *testing.T) {}\n",
		"notests/notests.go":      "package notests\n",
		"notests/notests_test.go": "package notests\n",
	} {
		path := filepath.Join(dir, name)
		testkit.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		testkit.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "-trimpath") // as in the Makefile, so that nothing must be compiled again
}

func report1(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

func TestReportOfWhatPassesIsALineAndTheSlowest(t *testing.T) {
	module(t)
	code, out := report1(t, "-count=1", "./good")
	if code != 0 || !strings.HasPrefix(out, "ok    example/good ") || !strings.Contains(out, "1 tests\nThe slowest") || !strings.Contains(out, " s  example/good TestGood\n") ||
		strings.Contains(out, "nobody needs this") {
		t.Errorf("exit status %d\n%s", code, out)
	}
}

func TestReportOfAFailureIsItsLogAndTheCommand(t *testing.T) {
	module(t)
	t.Setenv("AUDITSTREAM_TEST_POSTGRES", "local")
	code, out := report1(t, "-vet=off", "-parallel", "3", "-skip", "^TestOther$", "-timeout=1m", "./bad")
	for _, want := range []string{
		"FAIL  example/bad ", "bad_test.go:8: what went wrong\n",
		`    alone: AUDITSTREAM_TEST_POSTGRES=local go test -vet=off -count=1 -run '^TestBad$/^a_\(part\)$' example/bad` + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code != 1 || strings.Contains(out, "nobody needs this") || strings.Count(out, "alone:") != 1 {
		t.Errorf("exit status %d\n%s", code, out)
	}
}

func TestReportOfWhatDiesOtherwise(t *testing.T) {
	module(t)
	for _, test := range []struct{ pattern, want string }{
		{"./panics", "panic: the reason"},
		{"./broken", "undefined: testing"},
		{"./leaves", "something is left"},
		{"./nowhere", "nowhere"},
	} {
		if code, out := report1(t, test.pattern); code == 0 || !strings.Contains(out, test.want) {
			t.Errorf("%s: exit status %d, want %q in\n%s", test.pattern, code, test.want, out)
		}
	}
}

func TestReportPassesOnWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newReport(&out, nil)
	r.line([]byte("not JSON\n"))
	r.line([]byte(`{"Action":"bench","Package":"p"}` + "\n"))
	r.end()
	if got := out.String(); got != "not JSON\n" {
		t.Errorf("got %q", got)
	}
}
