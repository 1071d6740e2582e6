package ops

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// adoptions reads the page and the files: each section has one, and each file a section.
func (p tablesPage) adoptions(t testing.TB) (all []adoption) {
	t.Helper()
	commands := harness.CommandsOf(t, p.file)
	for _, name := range p.other {
		if _, ok := commands[name]; !ok {
			t.Errorf("%s has no section %q", p.file, name)
		}
		delete(commands, name)
	}
	files, err := filepath.Glob(harness.Path(p.folder) + "/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s, error %v", len(files), p.folder, err)
	}
	for name := range commands {
		slug := slugOf(name)
		text, err := os.ReadFile(harness.Path(p.folder + "/" + slug + ".sql"))
		if err != nil {
			t.Fatalf("%s has a section %q, which is not tested: %v", p.file, name, err)
		}
		a := parseAdoption(t, string(text))
		a.name, a.feed, a.commands = name, slug[:min(len(slug), 31)], commands[name]
		all = append(all, a)
	}
	harness.Equal(t, len(files), len(all), "files in", p.folder, "and sections of", p.file)
	return all
}

// slugOf is what a section's file is called, and its feed.
func slugOf(name string) string {
	return regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "_")
}

// parseAdoption reads a file: SQL that makes the tables, then lives that begin with "-- life: NAME", in which each line that begins with --> is what
// is shown after the statements before it. "-- mine: CLAIMS" says whose the rows are; else they are alice's.
func parseAdoption(t testing.TB, text string) adoption {
	t.Helper()
	a := adoption{mine: jwt.MapClaims{"sub": "alice"}}
	parts := regexp.MustCompile(`(?m)^-- life: (.*)\n`).Split(text, -1)
	names := regexp.MustCompile(`(?m)^-- life: (.*)\n`).FindAllStringSubmatch(text, -1)
	a.tables = parts[0]
	if m := regexp.MustCompile(`(?m)^-- mine: (.*)$`).FindStringSubmatch(a.tables); m != nil {
		a.mine = nil
		harness.NoError(t, json.Unmarshal([]byte(m[1]), &a.mine))
	}
	for n, part := range parts[1:] {
		l := rowLife{name: names[n][1]}
		statement := ""
		for line := range strings.Lines(part) {
			shown, ok := strings.CutPrefix(line, "--> ")
			if !ok {
				statement += line
				continue
			}
			l.steps = append(l.steps, rowStep{strings.TrimSpace(statement), strings.TrimSpace(shown)})
			statement = ""
		}
		if strings.TrimSpace(statement) != "" || len(l.steps) == 0 {
			t.Fatalf("life %q ends without what is shown", l.name)
		}
		a.lives = append(a.lives, l)
	}
	return a
}
