package service

import (
	"regexp"
	"strings"

	"auditstream/internal/sql"
)

// DriftCommand is what mends a finding.
func DriftCommand(d sql.Drift, f sql.Finding, role string) string {
	if f.Remedy != "" {
		return f.Remedy
	}
	return InstallCommand(sql.Schema{Table: d.Table, Role: role, Triggers: d.Triggers, Always: d.Always})
}

// InstallCommand is what upgrades a schema. Where the mapping of columns is not remembered, who has given one has to do so again.
func InstallCommand(s sql.Schema) string {
	command := "auditstream install"
	if s.Table != "" {
		command += " --table " + ShellQuote(Plain(s.Table))
	}
	command += " --role " + ShellQuote(s.Role)
	switch {
	case !s.Triggers:
		command += " --no-triggers"
	case s.Always:
		command += " --notify-always"
	}
	return command
}

var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// ShellQuote writes a text as a shell takes it.
func ShellQuote(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var needlessQuotes = regexp.MustCompile(`"([a-z_][a-z0-9_]*)"`)

// Plain takes the quotes off names that people write without.
func Plain(name string) string {
	if strings.Contains(name, `""`) {
		return name
	}
	return needlessQuotes.ReplaceAllString(name, "$1")
}
