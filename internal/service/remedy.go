package service

import (
	"regexp"
	"strings"

	"auditstream/internal/sql"
)

// DriftCommand returns the command that repairs a finding.
func DriftCommand(d sql.Drift, f sql.Finding, role string) string {
	if f.Remedy != "" && f.Feed != "" && f.Kind == "rights" && strings.HasPrefix(f.Remedy, "auditstream install ") {
		return f.Remedy + " --role " + sql.ShellQuote(role)
	}
	if f.Remedy != "" {
		return f.Remedy
	}
	return InstallCommand(sql.Schema{Table: d.Table, Role: role, Triggers: d.Triggers, Always: d.Always})
}

// InstallCommand returns the command that upgrades a schema. Where the schema does not keep the mapping of columns, the operator who gave
// one has to add it again.
func InstallCommand(s sql.Schema) string {
	command := "auditstream install"
	if s.Table != "" {
		command += " --table " + sql.ShellQuote(Plain(s.Table))
	}
	command += " --role " + sql.ShellQuote(s.Role)
	switch {
	case !s.Triggers:
		command += " --no-triggers"
	case s.Always:
		command += " --notify-always"
	}
	return command
}

var needlessQuotes = regexp.MustCompile(`"([a-z_][a-z0-9_]*)"`)

// Plain removes the quotes from SQL names that need none.
func Plain(name string) string {
	if strings.Contains(name, `""`) {
		return name
	}
	return needlessQuotes.ReplaceAllString(name, "$1")
}
