package service

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// earlier makes the table of audits.sql, with the schema of an earlier version.
func earlier(t *testing.T, version int) (dsn string) {
	t.Helper()
	dsn = pgtest.New(t)
	for _, name := range []string{"audits.sql", fmt.Sprintf("testdata/schema-%d.sql", version)} {
		script, err := os.ReadFile("../sql/" + name)
		testkit.NoError(t, err)
		pgtest.Psql(t, dsn, string(script))
	}
	return dsn
}

func TestInstallCommand(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]sql.Schema{
		"auditstream install --table public.audits --role serve":            {Table: `"public"."audits"`, Role: "serve", Triggers: true},
		"auditstream install --table app.jobs --role serve --notify-always": {Table: "app.jobs", Role: "serve", Triggers: true, Always: true},
		"auditstream install --table app.jobs --role serve --no-triggers":   {Table: "app.jobs", Role: "serve"},
		`auditstream install --table '"My S"."it'\''s"' --role 'a b'`:       {Table: `"My S"."it's"`, Role: "a b", Triggers: true},
		"auditstream install --role serve --no-triggers":                    {Role: "serve"},
	} {
		testkit.Equal(t, InstallCommand(s), want, "command")
	}
}

// Each difference is logged once, however often it is checked.
func TestServeTellsOfAnotherVersionOnce(t *testing.T) {
	t.Parallel()
	dsn := earlier(t, 1)
	conn := pgtest.Connect(t, dsn)
	var log bytes.Buffer
	w := newSchemaWatch(nil, conn, slog.New(slog.NewTextHandler(&log, nil)))
	told := func(want ...string) {
		t.Helper()
		w.compare(t.Context())
		w.compare(t.Context())
		if got := strings.Count(log.String(), "\n"); got != min(len(want), 1) {
			t.Errorf("%d lines, want %d:\n%s", got, min(len(want), 1), log.String())
		}
		for _, text := range want {
			if !strings.Contains(log.String(), text) {
				t.Errorf("no %q in %s", text, log.String())
			}
		}
		log.Reset()
	}
	told("level=WARN", "older than this program", "schema=1 program=5", `run="auditstream install --table public.audits --role `,
		`until_then="its triggers notify of every change`)
	if _, err := sql.Install(t.Context(), conn, sql.Options{}); err != nil {
		t.Fatal(err)
	}
	told("level=INFO", "schema=5 program=5")
	pgtest.Psql(t, dsn, `comment on view auditstream.progress is 'auditstream 6 x'`)
	told("level=WARN", "newer than this program: upgrade the program", "schema=6 program=5")
	pgtest.Psql(t, dsn, `comment on view auditstream.progress is 'by hand'`)
	told()
	if _, err := conn.Exec(t.Context(), `drop schema auditstream cascade`); err != nil {
		t.Fatal(err)
	}
	told()
}
