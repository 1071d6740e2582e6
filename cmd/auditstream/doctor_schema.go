package main

import (
	"context"
	"fmt"

	"auditstream/internal/service"
	"auditstream/internal/sql"
)

func (d *doctor) schema(ctx context.Context) []finding {
	s, err := sql.ReadSchema(ctx, d.pool)
	switch {
	case err != nil:
		return []finding{unanswered("schema", err)}
	case s.Version == 0:
		return nil // not installed, which another check reports, or written by hand
	case s.Version > sql.SchemaVersion:
		d.otherVersion = true
		return []finding{warn("Upgrade the program.", "schema: version %d, newer than this program's, %d", s.Version, sql.SchemaVersion)}
	case s.Version < sql.SchemaVersion:
		d.otherVersion = true
		lacks := s.Lacks()
		if lacks != "" {
			lacks = "; until it is upgraded " + lacks
		}
		return []finding{warn(upgradeRemedy(s), "schema: version %d, older than this program's, %d%s", s.Version, sql.SchemaVersion, lacks)}
	}
	return []finding{ok("schema: version %d, this program's", s.Version)}
}

// upgradeRemedy returns a sentence with the install command.
func upgradeRemedy(s sql.Schema) string {
	return fmt.Sprintf("Run %s, with the --column options that it was installed with.", service.InstallCommand(s))
}

func (d *doctor) drift(context.Context) []finding {
	if d.otherVersion || d.status.View != nil && d.hasAudits() && len(d.status.Drift.Findings) == 0 {
		return nil // reported already
	}
	var findings []finding
	for _, f := range d.status.Drift.Findings {
		remedy := f.Remedy
		if remedy == "" {
			remedy = "Run " + service.DriftCommand(d.status.Drift, f, d.pool.Config().ConnConfig.User)
		}
		findings = append(findings, fail(remedy, "%s", f.Text))
	}
	if findings == nil {
		return []finding{ok("the table, the views, the function, the triggers and the rights are as they were installed")}
	}
	return findings
}
