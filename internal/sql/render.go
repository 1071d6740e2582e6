package sql

import (
	_ "embed"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed audits.sql
var auditsSQL string

//go:embed feed.sql
var feedSQL string

//go:embed install.sql
var installSQL string

//go:embed uninstall.sql
var uninstallSQL string

// searchPath is the first statement of a script after the one that waits for other installs.
const searchPath = "set local search_path = pg_catalog, pg_temp;\n"

// stateSQL computes anew what install.sql leaves in auditstream.choices.made.
var stateSQL = between(installSQL, "-- state: all that compare it later read it with this same query\n", "-- end of state\n")

func between(s, start, end string) string {
	_, s, _ = strings.Cut(s, start)
	s, _, _ = strings.Cut(s, end)
	return s
}

// render is the little of psql that the .sql files use: it fills in :name and :'name', keeps the lines between
// \if :name and \endif when the variable is "true", and drops every other line that starts with a backslash: those are
// psql's defaults. What comes before the first statement explains the file, not the script, and is dropped as well.
func render(template string, vars map[string]string) string {
	// Line by line, and each line's variables in one pass: what a variable holds is never read as template again. Names
	// in PostgreSQL may hold anything, line breaks, backslashes and colons too.
	var out []string
	keep := []bool{true}
	started := false
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
			started = started || startsScript.MatchString(line)
			if !started {
				continue
			}
			line = substitute(line, vars)
			// An empty variable that had a line to itself leaves a gap.
			if line != "" || out[len(out)-1] != "" {
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "\n") + "\n"
}

var startsScript = regexp.MustCompile(`^(-- Read committed|begin |create table )`)

// The first alternative eats the casts.
var variable = regexp.MustCompile(`::|:'[a-z_]+'|:[a-z_]+`)

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

func ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// literal quotes s, whatever standard_conforming_strings is.
func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
