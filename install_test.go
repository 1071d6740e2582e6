package auditstream_test

import (
	"errors"
	"strings"
	"testing"

	"auditstream"
	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"
)

func TestInstallTwiceAndUninstall(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.New(t))
	for _, want := range []bool{true, false} {
		report, err := auditstream.Install(t.Context(), conn, auditstream.Table{Name: "public.audits", Create: true})
		if err != nil || report.Changed != want || report.Table != `"public"."audits"` {
			t.Errorf("%+v, %v, want that it changed something: %v", report, err, want)
		}
	}
	for _, want := range []bool{true, false} {
		report, err := auditstream.Uninstall(t.Context(), conn, "")
		if err != nil || report.Changed != want {
			t.Errorf("%+v, %v, want that it changed something: %v", report, err, want)
		}
	}
}

func TestInstallNamesTheField(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.New(t))
	for want, table := range map[string]auditstream.Table{
		"Table.Columns: colour=x":      {Columns: map[string]string{"colour": "x"}},
		`Table.Feed: "No"`:             {Feed: "No"},
		"Table.Lookups: x":             {Create: true, Lookups: []string{"x"}},
		`Table.Status: "=failed"`:      {Status: map[string]string{"": "failed"}},
		"Table.Create and Table.View ": {Create: true, View: "select 1"},
	} {
		_, err := auditstream.Install(t.Context(), conn, table)
		if !isUsage(err) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "--") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	database := conn.Config().Database
	execute(t, conn, `create table public.audits (id bigint primary key, status text, progress int, user_id text); create role stranger_`+database+` login;
		grant create on database `+database+` to stranger_`+database)
	execute(t, conn, `set role stranger_`+database)
	_, err := auditstream.Install(t.Context(), conn, auditstream.Table{})
	if !errors.Is(err, auditstream.ErrDenied) || !strings.Contains(err.Error(), "audits") {
		t.Errorf("a stranger's install: %v, want ErrDenied", err)
	}
	execute(t, conn, `reset role; revoke all on database `+database+` from stranger_`+database+`; drop role stranger_`+database)
}

// After a migration tool has run InstallSQL's script in its transaction, Install has nothing to do, and the settings are as before.
func TestInstallSQLIsForATransactionOfATool(t *testing.T) {
	t.Parallel()
	model, target := pgtest.Connect(t, pgtest.New(t)), pgtest.Connect(t, pgtest.New(t))
	const table = `create table audits (id bigint primary key, user_id text, status text, progress int); create table versions (n int)`
	execute(t, model, table)
	execute(t, target, table)
	script, err := auditstream.InstallSQL(t.Context(), model, auditstream.Table{Name: "audits"})
	testkit.NoError(t, err)
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(strings.ToLower(line)); line == "commit;" || strings.HasPrefix(line, "begin ") || line == "begin;" {
			t.Errorf("the script has %q", line)
		}
	}
	execute(t, target, `listen auditstream`)
	tx, err := target.Begin(t.Context())
	testkit.NoError(t, err)
	execute(t, tx, script)
	execute(t, tx, `insert into versions values (7)`) // by the search_path
	var timeout string
	if err := tx.QueryRow(t.Context(), `show lock_timeout`).Scan(&timeout); err != nil || timeout != "0" {
		t.Errorf("lock_timeout %s, %v, want what it was", timeout, err)
	}
	testkit.NoError(t, tx.Commit(t.Context()))
	if n, err := target.WaitForNotification(within(t)); err != nil || n.Payload != "*" {
		t.Errorf("notification %v, %v, want that of an install", n, err)
	}
	report, err := auditstream.Install(t.Context(), target, auditstream.Table{Name: "audits"})
	if err != nil || report.Changed {
		t.Errorf("Install afterwards: %+v, %v, want that nothing is left to do", report, err)
	}
	again, err := auditstream.InstallSQL(t.Context(), target, auditstream.Table{Name: "audits"})
	if err != nil || again != "" {
		t.Errorf("once more: %q, %v, want nothing", again, err)
	}
}
