package sql_test

import (
	"strings"
	"testing"

	"auditstream/internal/sql"
)

// A backup's role that could read everything is refused by pg_dump as soon as a table of ours is in the database. Nobody else is named.
func TestU3InstallNamesRolesThatCannotDumpAnyMore(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	backup, reader, server, all := role(t, dsn), role(t, dsn), role(t, dsn), role(t, dsn)
	for _, name := range []string{backup, reader, server, all} {
		exec(t, conn, `alter role `+name+` login`)
	}
	exec(t, conn, `create table audits (id serial primary key, status text, progress integer, user_id text); create schema app;
		create table app.others (id int);
		grant select on all tables in schema public to `+backup+`, `+reader+`, `+server+`;
		grant select on all sequences in schema public to `+backup+`, `+reader+`;
		grant usage on schema app to `+backup+`; grant select on app.others to `+backup+`; grant pg_read_all_data to `+all)
	warned := func(o sql.Options) string { return strings.Join(warnings(install(t, conn, o)), "\n") }
	_ = warned(sql.Options{Role: server})
	// Whatever table is there: it is pg_dump that locks them all.
	exec(t, conn, `create table auditstream.more (id int)`)
	got := warned(sql.Options{})
	if !strings.Contains(got, "pg_dump of the whole database fails for "+backup+", who may") {
		t.Fatalf("warnings: %q", got)
	}
	for _, other := range []string{reader, server, all} {
		if strings.Contains(got, other) {
			t.Errorf("%s could not dump the database before, or still can: %q", other, got)
		}
	}
	// What the warning says helps.
	exec(t, conn, got[strings.Index(got, "grant usage"):])
	if got := warned(sql.Options{}); got != "" {
		t.Errorf("warnings after the grant: %q", got)
	}
}
