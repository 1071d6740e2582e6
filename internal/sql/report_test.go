package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
)

// For work without a table, or with a queue that locks its rows, install makes a table and a function that reports to it.
func TestReport(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	before := catalog(t, conn)
	app := role(t, dsn)
	o := sql.Options{Feed: "imports", Create: true}
	plan := install(t, conn, o)
	if notes := strings.Join(plan.Notes, "\n"); !strings.Contains(notes, `select auditstream.report('KEY', 42, 'half of it', user_id => 'USER')`) ||
		plan.Table != `"public"."imports"` {
		t.Errorf("table %s, notes %s", plan.Table, notes)
	}
	for _, again := range []sql.Options{o, {Feed: "imports"}} {
		unchanged(t, conn, again)
	}
	b := everything(t, dsn)
	caller := pgtest.Connect(t, dsn)
	exec(t, conn, `grant usage on schema auditstream to `+app+`; grant select, insert, update on imports to `+app)
	exec(t, caller, `set session authorization `+app)
	for _, r := range []struct{ call, shown string }{
		{`'a/1', 0, user_id => 'alice'`, `{"id":"a/1","user_id":"alice","status":"running","progress":0}`},
		{`'a/1', 12.9, 'a part'`, `{"id":"a/1","user_id":"alice","status":"running","progress":12,"message":"a part"}`},
		{`'a/1', 'NaN'`, `{"id":"a/1","user_id":"alice","status":"running","progress":0}`},
		{`'a/1', 30::numeric, null, 'Waiting'`, `{"id":"a/1","user_id":"alice","status":"waiting","progress":30}`},
		{`'a/1', null, 'no page', 'failed'`, `{"id":"a/1","user_id":"alice","status":"failed","progress":30,"error":"no page"}`},
		{`'a/1', 1e300, 'all of it'`, `{"id":"a/1","user_id":"alice","status":"completed","progress":100,"message":"all of it"}`},
		{`'a/1', -5::smallint, status => 'running', user_id => 'bob', user_email => 'b@example.com'`,
			`{"id":"a/1","user_id":"bob","user_email":"b@example.com","status":"running","progress":0}`},
	} {
		b.notifies(t, caller, `select auditstream.report(`+r.call+`)`, "imports:a/1")
		equal(t, r.call, feedShown(t, conn, "progress_imports"), []string{r.shown})
	}
	b.notifies(t, caller, `select auditstream.report(42, 7); select auditstream.report(k, 8) from (values (43::bigint)) x (k)`, "imports:42",
		"imports:43")
	for _, call := range []string{`null, 1`, `'', 1`, `repeat('x', 256), 1`} {
		if _, err := caller.Exec(t.Context(), `select auditstream.report(`+call+`)`); err == nil {
			t.Errorf("report(%s) has no error", call)
		}
	}
	stranger := pgtest.Connect(t, dsn)
	exec(t, stranger, `set session authorization `+role(t, dsn))
	if _, err := stranger.Exec(t.Context(), `select auditstream.report('a/1', 1)`); err == nil {
		t.Error("whoever may not write to the table reports")
	}
	undrifted(t, dsn, "")
	// Another one has a function of its own, and each its drift.
	install(t, conn, sql.Options{Feed: "exports", Create: true})
	install(t, conn, sql.Options{Create: true})
	exec(t, conn, `alter table imports rename to brought; select auditstream.report('x', 1); select auditstream.report_exports(1, 100)`)
	undrifted(t, dsn, "")
	exec(t, conn, `alter table brought rename to imports; drop function auditstream.report_exports(bigint, double precision, text, text, text, text);
		create or replace function auditstream.report(key text, progress double precision, message text default null, status text default null,
			user_id text default null, user_email text default null)
		returns void language sql security definer begin atomic select; end`)
	if _, all := kinds(t, dsn, ""); len(all) != 2 {
		t.Errorf("found %+v", all)
	}
	install(t, conn, sql.Options{Feed: "exports"})
	install(t, conn, sql.Options{Feed: "imports"})
	undrifted(t, dsn, "")
	uninstall(t, conn, "imports")
	uninstall(t, conn)
	exec(t, conn, `drop table imports, exports, audits`)
	equal(t, "after uninstall", catalog(t, conn), before)
}
