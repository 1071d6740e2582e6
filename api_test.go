package auditstream_test

import (
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/api"
	"auditstream/internal/testkit"
)

// promised are the packages whose exported API is promised to other programs.
var promised = []string{".", "auditstreamtest"}

// internal/api/api.txt has the exported API of the last release. Each name that differs from it has an entry in CHANGELOG.md, part Unreleased: the name
// in backquotes. UPDATE_API=1 writes it, when a release is made.
func TestEachChangeOfTheAPIIsInTheChangelog(t *testing.T) {
	t.Parallel()
	now := map[string]string{}
	for _, dir := range promised {
		names, err := api.Listing(dir)
		testkit.NoError(t, err)
		for name, text := range names {
			now[qualified(dir)+"."+name] = text
		}
	}
	if os.Getenv("UPDATE_API") != "" {
		var lines []string
		for _, name := range slices.Sorted(maps.Keys(now)) {
			lines = append(lines, name+"\t"+now[name]+"\n")
		}
		testkit.NoError(t, os.WriteFile("internal/api/api.txt", []byte(strings.Join(lines, "")), 0o644))
	}
	released := map[string]string{}
	for line := range strings.Lines(text(t, "internal/api/api.txt")) {
		name, declared, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		released[name] = declared
	}
	_, unreleased, found := strings.Cut(text(t, "CHANGELOG.md"), "\n## [Unreleased]\n")
	if !found {
		t.Fatal("CHANGELOG.md has no part [Unreleased]")
	}
	unreleased, _, _ = strings.Cut(unreleased, "\n## [")
	for _, name := range unexplained(released, now, unreleased) {
		t.Errorf("%s is not as it was released (%q, now %q): add an entry to CHANGELOG.md, under [Unreleased], with `%s` in it", name, released[name], now[name], name)
	}
}

// unexplained returns the names that differ and are not in the changelog. For fields and methods of a new or removed type, an entry of the
// type is enough.
func unexplained(released, now map[string]string, changelog string) (names []string) {
	all := maps.Clone(released)
	maps.Copy(all, now)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		owner := name[:strings.LastIndexByte(name, '.')]
		if released[name] == now[name] || strings.Contains(changelog, "`"+name+"`") ||
			released[owner] != now[owner] && strings.Contains(changelog, "`"+owner+"`") {
			continue
		}
		names = append(names, name)
	}
	return names
}

func TestUnexplained(t *testing.T) {
	t.Parallel()
	released := map[string]string{"p.New": "func New()", "p.Old": "func Old()", "p.T": "type T struct", "p.T.A": "int"}
	now := map[string]string{"p.New": "func New(n int)", "p.T": "type T struct", "p.T.A": "string", "p.U": "type U struct", "p.U.B": "int"}
	if got := unexplained(released, now, "nothing"); !slices.Equal(got, []string{"p.New", "p.Old", "p.T.A", "p.U", "p.U.B"}) {
		t.Errorf("unexplained %v", got)
	}
	if got := unexplained(released, now, "`p.New`, `p.U`; `p.T`"); !slices.Equal(got, []string{"p.Old", "p.T.A"}) {
		t.Errorf("unexplained %v, want the two that are not named", got)
	}
}

func qualified(dir string) string {
	if dir == "." {
		return "auditstream"
	}
	return path.Base(dir)
}

func text(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	testkit.NoError(t, err)
	return string(text)
}
