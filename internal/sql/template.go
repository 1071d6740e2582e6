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

// searchPath is the first statement of a script after it has waited for other installs.
const searchPath = "set local search_path = pg_catalog, pg_temp;\n"

// stateSQL is the query of install.sql whose result it stores in auditstream.choices.made.
var stateSQL = between(installSQL, "-- state: later installs, doctor and serve compare the result of this query with the stored one\n", "-- end of state\n")

func between(s, start, end string) string {
	_, s, _ = strings.Cut(s, start)
	s, _, _ = strings.Cut(s, end)
	return s
}

// render does what psql does with the .sql files: it fills in :name and :'name', and keeps the lines between \if :name and \endif when the
// variable is "true". It drops all other lines that start with a backslash, which set psql's defaults, and what comes before the first
// statement, which explains the file and not the script.
func render(template string, vars map[string]string) string {
	// Line by line, and all variables of a line in one pass, so that a variable's value is never read as a template. Names in PostgreSQL may
	// contain anything, also line breaks, backslashes and colons.
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
			// An empty variable on a line of its own leaves an empty line: keep only one of several.
			if line != "" || out[len(out)-1] != "" {
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "\n") + "\n"
}

var startsScript = regexp.MustCompile(`^(-- Read committed|begin |create table )`)

// The first alternative matches casts, so that they are left alone.
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

var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// ShellQuote quotes a text for a POSIX shell, if it needs quotes.
func ShellQuote(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
