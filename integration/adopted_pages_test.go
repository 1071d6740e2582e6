package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

var (
	pageSection = regexp.MustCompile(`(?m)^## (.*)\n`)
	pageBlock   = regexp.MustCompile("(?ms)^```(sql|sh)\n(.*?)^```$")
)

// commandsOf are those of each section of a page.
func commandsOf(t testing.TB, file string) map[string][]string {
	t.Helper()
	text := document(t, file)
	all := make(map[string][]string)
	found := pageSection.FindAllStringSubmatchIndex(text, -1)
	for n, at := range found {
		end := len(text)
		if n+1 < len(found) {
			end = found[n+1][0]
		}
		name := text[at[2]:at[3]]
		all[name] = nil
		for _, block := range pageBlock.FindAllStringSubmatch(text[at[1]:end], -1) {
			all[name] = append(all[name], block[1]+"\n"+block[2])
		}
	}
	return all
}

// adoptions reads the page and the files: each section has one, and each file a section.
func (p tablesPage) adoptions(t testing.TB) (all []adoption) {
	t.Helper()
	commands := commandsOf(t, p.file)
	for _, name := range p.other {
		if _, ok := commands[name]; !ok {
			t.Errorf("%s has no section %q", p.file, name)
		}
		delete(commands, name)
	}
	files, err := filepath.Glob(repoPath(p.folder) + "/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s, error %v", len(files), p.folder, err)
	}
	for name := range commands {
		slug := slugOf(name)
		text, err := os.ReadFile(repoPath(p.folder + "/" + slug + ".sql"))
		if err != nil {
			t.Fatalf("%s has a section %q, which is not tested: %v", p.file, name, err)
		}
		a := parseAdoption(t, string(text))
		a.name, a.feed, a.commands = name, slug[:min(len(slug), 31)], commands[name]
		all = append(all, a)
	}
	if len(files) != len(all) {
		t.Errorf("%d files in %s, and %d sections in %s", len(files), p.folder, len(all), p.file)
	}
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
		if err := json.Unmarshal([]byte(m[1]), &a.mine); err != nil {
			t.Fatal(err)
		}
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
