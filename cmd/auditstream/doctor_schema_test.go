package main

import (
	"fmt"
	"os"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// earlier makes the table of audits.sql with what an earlier version installed.
func earlier(t *testing.T, version int) (dsn string) {
	t.Helper()
	dsn = pgtest.New(t)
	for _, name := range []string{"audits.sql", fmt.Sprintf("testdata/schema-%d.sql", version)} {
		script, err := os.ReadFile("../../internal/sql/" + name)
		testkit.NoError(t, err)
		pgtest.Psql(t, dsn, string(script))
	}
	return dsn
}

func TestDoctorComparesVersions(t *testing.T) {
	t.Parallel()
	dsn := earlier(t, 1)
	const older = "warn  schema: version 1, older than this program's, 5; until it is upgraded its triggers notify of every change"
	mustContain(t, examine(t, dsn).want(t, exitDone).out, older, "Run auditstream install --table public.audits --role ",
		", with the --column options that it was installed with.")
	got := command(t, "install", "--database-url="+dsn, "--dry-run").want(t, exitDone)
	mustContain(t, got.stderr, "auditstream: this upgrades the schema from version 1 to 5\n")
	mustContain(t, command(t, "install", "--database-url="+dsn).want(t, exitDone).out,
		`Upgraded on "public"."audits": the schema was of version 1 and is of version 5 now.`)
	mustContain(t, command(t, "install", "--database-url="+dsn).want(t, exitDone).out, "nothing to change")
	command(t, "install", "--database-url="+dsn, "--column=message=", `--column=error=message`).want(t, exitDone)
	mustContain(t, command(t, "install", "--database-url="+dsn).want(t, exitDone).stderr,
		"auditstream: as installed before: --column error=message --column message=\n")
	mustContain(t, examine(t, dsn).want(t, exitDone).out, "ok    schema: version 5, this program's\n")

	execSQL(t, dsn, `comment on view auditstream.progress is 'auditstream 6 x'`)
	mustContain(t, examine(t, dsn).want(t, exitDone).out, "warn  schema: version 6, newer than this program's, 5\n", "Upgrade the program.")
	for _, name := range []string{"install", "uninstall"} {
		mustContain(t, command(t, name, "--database-url="+dsn).want(t, exitFailed).stderr,
			"the installed schema has version 6, newer than this program's, which is 5, so it is left alone: upgrade the program")
	}
	execSQL(t, dsn, `comment on view auditstream.progress is 'by hand'`)
	mustNotContain(t, examine(t, dsn).want(t, exitDone).out, "schema:")
}

// Schema versions 2 to 4 kept a table of watched rows, which this program does not write: doctor says what that costs.
func TestDoctorSaysWhatAnOlderSchemaCosts(t *testing.T) {
	t.Parallel()
	for version := 2; version < sql.SchemaVersion; version++ {
		out := examine(t, earlier(t, version)).want(t, exitDone).out
		mustContain(t, out, fmt.Sprintf("warn  schema: version %d, older than this program's, 5; until it is upgraded its triggers do not know what this program watches", version),
			"Run auditstream install --table public.audits --role ")
		mustNotContain(t, out, "altered", "locks:", "feeds")
	}
}
