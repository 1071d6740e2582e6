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
	"internal/connpool":             {},
	"internal/server/web":           {},
	"internal/localpg":              {},
	"internal/pgnotify":             {"internal/store"},
	"internal/pgnotify/redisnotify": {"internal/store", "internal/pgnotify"},
	"internal/server":               {"internal/store", "internal/connpool", "internal/server/web"},
}

// forTests are what tests may import besides: what starts PostgreSQL and Redis, and packages of the lowest floor.
var forTests = []string{"internal/localpg", "internal/pgtest", "internal/redistest", "internal/admin", "internal/store"}

// A package imports nothing from the floors above it: server and pgnotify do not know each other, store and sql know nobody.
func TestDocsPackagesKeepTheirFloors(t *testing.T) {
	t.Parallel()
	harness.DependsOn(t, "internal")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f",
		`{{.Module.Path}} {{.ImportPath}}: {{join .Imports " "}} . {{join .TestImports " "}} {{join .XTestImports " "}}`, "./internal/...")
	cmd.Dir = harness.Path(".")
	out, err := cmd.Output()
	harness.NoError(t, err)
	seen := 0
	for line := range strings.Lines(string(out)) {
		module, rest, _ := strings.Cut(line, " ")
		name, imports, _ := strings.Cut(rest, ": ")
		name = strings.TrimPrefix(name, module+"/")
		allowed, known := lowerFloors[name]
		if !known {
			continue
		}
		seen++
		program, tests, _ := strings.Cut(imports, " . ")
		for _, list := range []struct{ imports, more []string }{{strings.Fields(program), nil}, {strings.Fields(tests), append([]string{name}, forTests...)}} {
			for _, imported := range list.imports {
				ours, isOurs := strings.CutPrefix(imported, module+"/")
				if (isOurs || imported == module) && !slices.Contains(allowed, ours) && !slices.Contains(list.more, ours) {
					t.Errorf("%s imports %s, which is above it", name, imported)
				}
			}
		}
	}
	if seen != len(lowerFloors) {
		t.Errorf("%d of %d packages were found", seen, len(lowerFloors))
	}
}

// The integration tests know the binary from outside: nothing of ours is linked into them but what tests are helped by.
func TestDocsIntegrationTestsLinkHelpersAlone(t *testing.T) {
	t.Parallel()
	harness.DependsOn(t, "integration")
	helpers := []string{"integration/harness", "integration/series", "internal/localpg", "internal/pgtest", "internal/redistest"}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", "image,release", "-f",
		`{{.Module.Path}} {{.ImportPath}}: {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, "./integration/...")
	cmd.Dir = harness.Path(".")
	out, err := cmd.Output()
	harness.NoError(t, err)
	onHarness := 0
	for line := range strings.Lines(string(out)) {
		module, rest, _ := strings.Cut(line, " ")
		name, imports, _ := strings.Cut(rest, ": ")
		for imported := range strings.FieldsSeq(imports) {
			ours, isOurs := strings.CutPrefix(imported, module+"/")
			if (isOurs || imported == module) && !slices.Contains(helpers, ours) {
				t.Errorf("%s imports %s, which is no helper of tests", name, imported)
			}
			if ours == "integration/harness" {
				onHarness++
			}
		}
	}
	if onHarness < 8 {
		t.Errorf("%d packages are on the harness, want all of them", onHarness)
	}
}
