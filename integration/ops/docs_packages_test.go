package ops

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// lowerFloors are packages with what they may import of ours; docs/contributing.md draws them. What is not named here is above them.
var lowerFloors = map[string][]string{
	"internal/admin":                {},
	"internal/store":                {},
	"internal/sql":                  {},
	"internal/dsn":                  {},
	"internal/nonblock":             {},
	"internal/connpool":             {"internal/nonblock"},
	"internal/server/web":           {},
	"internal/localpg":              {},
	"internal/pgnotify":             {"internal/store", "internal/nonblock"},
	"internal/pgnotify/redisnotify": {"internal/store", "internal/pgnotify"},
	"internal/server":               {"internal/store", "internal/connpool", "internal/nonblock", "internal/server/web"},
}

// forTests are what tests may import besides: what starts PostgreSQL and Redis, and packages of the lowest floor.
var forTests = []string{"internal/localpg", "internal/pgtest", "internal/redistest", "internal/testkit", "internal/admin", "internal/store"}

// A package imports nothing from the floors above it: server and pgnotify do not know each other, store and sql know nobody.
func TestDocsPackagesKeepTheirFloors(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, p := range packagesIn(t, "internal") {
		allowed, known := lowerFloors[p.name]
		if !known {
			continue
		}
		seen++
		for _, list := range []struct{ imports, more []string }{{p.imports, nil}, {p.byTests, append([]string{p.name}, forTests...)}} {
			for _, imported := range list.imports {
				if !slices.Contains(allowed, imported) && !slices.Contains(list.more, imported) {
					t.Errorf("%s imports %s, which is above it", p.name, imported)
				}
			}
		}
	}
	harness.Equal(t, seen, len(lowerFloors), "packages that were found")
}

// The integration tests know the binary from outside: nothing of ours is linked into them but what tests are helped by.
func TestDocsIntegrationTestsLinkHelpersAlone(t *testing.T) {
	t.Parallel()
	helpers := []string{"integration/harness", "integration/series", "internal/localpg", "internal/pgtest", "internal/redistest", "internal/testkit"}
	onHarness := 0
	for _, p := range packagesIn(t, "integration") {
		for _, imported := range slices.Concat(p.imports, p.byTests) {
			if !slices.Contains(helpers, imported) {
				t.Errorf("%s imports %s, which is no helper of tests", p.name, imported)
			}
			if imported == "integration/harness" {
				onHarness++
			}
		}
	}
	if onHarness < 8 {
		t.Errorf("%d packages are on the harness, want all of them", onHarness)
	}
}

// imports are those of a package that are of our module.
type imports struct {
	name             string
	imports, byTests []string
}

// packagesIn are those below a folder.
func packagesIn(t *testing.T, folder string) (all []imports) {
	t.Helper()
	harness.DependsOn(t, folder)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", "image,release", "-f",
		`{{.Module.Path}}: {{.ImportPath}}: {{join .Imports " "}}: {{join .TestImports " "}} {{join .XTestImports " "}}`, "./"+folder+"/...")
	cmd.Dir = harness.Path(".")
	out, err := cmd.Output()
	harness.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		parts := strings.Split(line, ": ")
		ours := func(list string) (names []string) {
			for _, name := range strings.Fields(list) {
				if name == parts[0] || strings.HasPrefix(name, parts[0]+"/") {
					names = append(names, strings.TrimPrefix(name, parts[0]+"/"))
				}
			}
			return names
		}
		all = append(all, imports{ours(parts[1])[0], ours(parts[2]), ours(parts[3])})
	}
	return all
}
