package ops

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// pages are those of docs/.
func pages(t testing.TB) (all []string) {
	t.Helper()
	files, err := filepath.Glob(harness.Path("docs/*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d pages in docs, error %v", len(files), err)
	}
	for _, file := range files {
		all = append(all, "docs/"+filepath.Base(file))
	}
	return all
}

// testFiles are the tests of the repository by the file that each is in, like "internal/server/verifier_test.go TestName".
func testFiles(t testing.TB) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	err := filepath.WalkDir(harness.Path("."), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			tests[filepath.ToSlash(strings.TrimPrefix(path, harness.Path(".")+string(filepath.Separator)))+" "+m[1]] = true
		}
		return nil
	})
	harness.NoError(t, err)
	return tests
}

// testNames are those of all tests, whatever their package and build tags.
func testNames(t testing.TB) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for test := range testFiles(t) {
		_, name, _ := strings.Cut(test, " ")
		names[name] = true
	}
	return names
}

// Every direct dependency has its reason in docs/contributing.md, and nothing has that is none.
func TestDocsDependenciesHaveAReason(t *testing.T) {
	t.Parallel()
	var required []string
	for line := range strings.Lines(harness.Document(t, "go.mod")) {
		if m := regexp.MustCompile(`^(?:\t|require )(\S+) v\S+$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			required = append(required, m[1])
		}
	}
	_, list, found := strings.Cut(harness.Document(t, "docs/contributing.md"), "\nDirect dependencies, and what each saves:\n")
	if !found || len(required) == 0 {
		t.Fatalf("%d direct dependencies, the list in docs/contributing.md found: %v", len(required), found)
	}
	list, _, _ = strings.Cut(list, "\n## ")
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| *([^ |].*) \\|$").FindAllStringSubmatch(list, -1) {
		explained = append(explained, m[1])
	}
	slices.Sort(required)
	slices.Sort(explained)
	harness.WantList(t, "docs/contributing.md explains", explained, required)
}

// THIRD_PARTY.md names every module of the program; that the licences are right, make licenses finds out.
func TestDocsThirdPartyIsWhole(t *testing.T) {
	t.Parallel()
	harness.DependsOn(t, "cmd", "internal")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/auditstream")
	cmd.Dir, cmd.Env = harness.Path("."), append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	harness.NoError(t, err)
	linked := map[string]bool{}
	for module := range strings.FieldsSeq(string(out)) {
		linked[module] = true
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\S+/\S+) \| \S+ \|$`).FindAllStringSubmatch(harness.Document(t, "THIRD_PARTY.md"), -1) {
		module := m[1]
		for !linked[module] && strings.Contains(module, "/") { // a package of a module
			module = module[:strings.LastIndexByte(module, '/')]
		}
		if !linked[module] {
			t.Errorf("%s is listed and not linked", m[1])
		}
		listed[module] = true
	}
	harness.WantList(t, "THIRD_PARTY.md lists", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(linked)))
}

// A promise in SECURITY.md names the test that holds it, by file and by name: both exist.
func TestDocsSecurityPromisesAreTested(t *testing.T) {
	t.Parallel()
	tests := testFiles(t)
	text := harness.Document(t, "SECURITY.md")
	links := regexp.MustCompile("\\[`((?:Test|Fuzz)\\w+)`\\]\\((\\S+_test\\.go)\\)").FindAllStringSubmatch(text, -1)
	if len(links) == 0 {
		t.Fatal("SECURITY.md names no test")
	}
	for _, link := range links {
		if !tests[link[2]+" "+link[1]] {
			t.Errorf("SECURITY.md names %s in %s: there is no such test", link[1], link[2])
		}
	}
	if all := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(text, -1); len(all) != len(links) {
		t.Errorf("SECURITY.md names %d tests and links %d of them with their file", len(all), len(links))
	}
	// A promise is an item of a list; each has its test.
	_, promises, _ := strings.Cut(text, "\n## Threat model\n")
	promises, _, _ = strings.Cut(promises, "\n## What is not promised\n")
	items := regexp.MustCompile(`(?m)^- `).Split(promises, -1)[1:]
	if len(items) == 0 {
		t.Fatal("SECURITY.md has no list under Threat model")
	}
	for _, item := range items {
		if !strings.Contains(item, "_test.go)") && !strings.Contains(item, "`make ") {
			t.Errorf("SECURITY.md promises without naming a test:\n%s", item)
		}
	}
}

// The way of an update through the code, as docs/how-it-works.md tells it, is that of the code: each function is where it is said to be, and
// there are no more than seven.
func TestDocsFollowOneUpdate(t *testing.T) {
	t.Parallel()
	_, way, _ := strings.Cut(harness.Document(t, "docs/how-it-works.md"), "One UPDATE passes through seven functions")
	way, _, _ = strings.Cut(way, "\n## ")
	steps := regexp.MustCompile("(?m)^(\\d)\\. `(\\w+)\\.(\\w+)` \\(([\\w/.]+)\\)").FindAllStringSubmatch(way, -1)
	if len(steps) != 7 {
		t.Fatalf("%d steps, want 7", len(steps))
	}
	for _, step := range steps {
		declared := regexp.MustCompile(`(?m)^func \(\w+ \*?` + step[2] + `\) ` + step[3] + `\(`)
		if !declared.MatchString(harness.Document(t, step[4])) {
			t.Errorf("%s has no %s.%s", step[4], step[2], step[3])
		}
	}
}
