package sql_test

import (
	"testing"

	"auditstream/internal/sql"
)

// A column that was left out on purpose stays left out when somebody upgrades or repairs without repeating the option.
func TestInstallRemembersTheColumns(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	const odd = `it's {"odd"} \ :key`
	exec(t, conn, `create table audits (id int primary key, status text, progress int, message text, "it's {""odd""} \ :key" text, error text);
		insert into audits values (1, 'failed', 3, 'secret', 'reason', 'not this')`)
	shown := func(want string) {
		t.Helper()
		equal(t, "shown", column(t, conn, `select concat_ws(', ', progress, message, error) from auditstream.progress`), []string{want})
	}
	install(t, conn, sql.Options{Columns: map[string]string{"message": "", "error": odd}})
	shown("3, reason")

	again := install(t, conn, sql.Options{})
	equal(t, "kept", again.Kept, []string{"error=" + odd, "message="})
	if again.SQL != "" {
		t.Errorf("the second install runs:\n%s", again.SQL)
	}
	exec(t, conn, `drop trigger auditstream_update on audits`)
	if repaired := install(t, conn, sql.Options{NotifyAlways: true}); repaired.SQL == "" {
		t.Error("nothing was repaired")
	}
	shown("3, reason")

	changed := install(t, conn, sql.Options{Columns: map[string]string{"message": "MESSAGE"}})
	equal(t, "kept", changed.Kept, []string{"error=" + odd})
	shown("3, secret, reason")
	equal(t, "kept", install(t, conn, sql.Options{}).Kept, []string{"error=" + odd, "message=message"})

	exec(t, conn, `alter table audits rename message to text`)
	equal(t, "a renamed column is followed", install(t, conn, sql.Options{}).Kept, []string{"error=" + odd, "message=text"})
	shown("3, secret, reason")

	exec(t, conn, `update auditstream.choices set options = '[1]'`)
	refusedWith(t, sql.Install, conn, sql.Options{}, "auditstream was installed with other columns: this would show error, and no longer show ")
	install(t, conn, sql.Options{Columns: map[string]string{"error": "", "message": "text"}})
	shown("3, secret")

	uninstall(t, conn)
	if kept := install(t, conn, sql.Options{}).Kept; len(kept) != 0 {
		t.Errorf("kept %q of what was uninstalled", kept)
	}
}

// Earlier versions do not record their options. An upgrade still does not change silently what is shown.
func TestUpgradeDoesNotShowOtherColumns(t *testing.T) {
	t.Parallel()
	for version := 1; version <= sql.SchemaVersion; version++ {
		dsn, conn := database(t)
		old(t, dsn, version)
		exec(t, conn, `create or replace view auditstream.progress as
			select id as audit_id, user_id, user_email, lower(status collate "C") as status, progress,
			null::text as message, geo_score, total_pages, url as error from audits`)
		before := versions(t, conn)
		refused(t, sql.Install, conn, sql.Options{}, "auditstream was installed with other columns: this would show message, error, "+
			"and no longer show url; give the --column options of that install, or --column OURS=THEIRS for what is to change (OURS= leaves it out)")
		equal(t, "rows of the catalogs", versions(t, conn), before)
		install(t, conn, sql.Options{Columns: map[string]string{"message": "", "error": "url"}})
		equal(t, "kept", install(t, conn, sql.Options{}).Kept, []string{"error=url", "message="})
		equal(t, "shown", column(t, conn, `select concat_ws(', ', message) from auditstream.progress`), []string{""})
	}
}
