package main

import (
	"cmp"
	"context"
	"slices"

	"auditstream/internal/service"
	"auditstream/internal/sql"
	"auditstream/internal/store"
)

// hasAudits reports whether the feed audits is installed; other feeds do not need it.
func (d *doctor) hasAudits() bool {
	return slices.ContainsFunc(d.adopted, func(f sql.Feed) bool { return f.Name == store.DefaultFeed })
}

// feedContents checks for each feed whether it can be read, and what is in it.
func (d *doctor) feedContents(ctx context.Context) (findings []finding) {
	if d.otherVersion || d.hasAudits() && d.status.View != nil {
		return nil // reported already
	}
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return []finding{unanswered("feeds", err)}
	}
	defer conn.Release()
	if d.status.Super { // see sql.Status
		return []finding{ok("feeds: what is in them is read with the DATABASE_URL of serve alone, not as a superuser")}
	}
	for _, f := range d.adopted {
		name := "feed " + f.Name
		if _, err := store.New(conn, service.StoreFeed(f)).Rows(ctx, nil); err != nil { // serve's own query
			findings = append(findings, unanswered(name, err))
			continue
		}
		if f.Name != store.DefaultFeed { // for audits, the check installation has reported this
			findings = append(findings, ok("%s: %s is readable, its keys are of type %s", name, f.View, cmp.Or(f.Key, "integer")))
			if scan, err := sql.Scanned(ctx, conn.Conn(), f); err != nil {
				findings = append(findings, unanswered(name, err))
			} else if scan.Table != "" {
				findings = append(findings, warn("Create "+scan.Index()+".", "%s: every read of one row scans the whole of %s", name, scan.Table))
			}
		}
		seen, err := sql.See(ctx, conn.Conn(), f)
		if err != nil {
			findings = append(findings, unanswered(name, err))
		}
		for _, note := range seen.Notes {
			findings = append(findings, ok("%s: %s", name, note))
		}
		for _, warning := range seen.Warnings {
			findings = append(findings, warn(warning.Remedy, "%s: %s", name, warning.Text))
		}
	}
	return findings
}
