package sql

import (
	_ "embed"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed audits.sql
var auditsSQL string

//go:embed install.sql
var installSQL string

//go:embed uninstall.sql
var uninstallSQL string

// searchPath is the first statement of a script after the one that waits for other installs.
const searchPath = "set local search_path = pg_catalog, pg_temp;\n"

// stateSQL computes anew what the comment that install.sql leaves on the view ends with.
var stateSQL = between(installSQL, "-- state: install reads it with this same query\n", "-- end of state\n")

func between(s, start, end string) string {
	_, s, _ = strings.Cut(s, start)
	s, _, _ = strings.Cut(s, end)
	return s
}

// render is the little of psql that the .sql files use: it fills in :name and :'name', keeps the lines between
// \if :name and \endif when the variable is "true", and drops every other line that starts with a backslash: those are
// psql's defaults. What comes before the first statement explains the file, not the script, and is dropped as well.
func render(template string, vars map[string]string) string {
	var out []string
	keep := []bool{true}
	for line := range strings.Lines(template) {
		line = strings.TrimRight(line, "\n")
		command := strings.TrimSpace(line)
		inside := keep[len(keep)-1]
		switch {
		case strings.HasPrefix(command, `\if :`):
			keep = append(keep, inside && vars[strings.TrimPrefix(command, `\if :`)] == "true")
		case command == `\endif`:
			keep = keep[:len(keep)-1]
		case strings.HasPrefix(command, `\`):
		case inside:
			out = append(out, substitute(line, vars))
		}
	}
	script := strings.Join(out, "\n")
	for _, first := range []string{"\n-- Read committed", "\nbegin ", "\ncreate table "} {
		if i := strings.Index(script, first); i >= 0 {
			script = script[i+1:]
			break
		}
	}
	// An empty variable that had a line to itself leaves a gap.
	return gaps.ReplaceAllString(script, "\n\n") + "\n"
}

var (
	// The first alternative eats the casts.
	variable = regexp.MustCompile(`::|:'[a-z_]+'|:[a-z_]+`)
	gaps     = regexp.MustCompile(`\n{3,}`)
)

func substitute(line string, vars map[string]string) string {
	return variable.ReplaceAllStringFunc(line, func(match string) string {
		value, known := vars[strings.Trim(match, ":'")]
		switch {
		case !known:
			return match
		case strings.HasPrefix(match, ":'"):
			return literal(value)
		default:
			return value
		}
	})
}

// nameKey puts the key's name into the body of the trigger function, which psql leaves alone because it is quoted:
// there the default, id, is written out.
func nameKey(template, key string) string {
	return strings.NewReplacer(`new."id"`, "new."+ident(key), `old."id"`, "old."+ident(key),
		"attname = 'id'", "attname = "+literal(key)).Replace(template)
}

func ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// literal quotes s for a session with standard_conforming_strings on, which every script sets first.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
