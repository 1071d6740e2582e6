package sql_test

import (
	"context"
	"testing"

	"auditstream/internal/sql"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// A backslash in the key's name made every write an error where standard_conforming_strings is off, as long as the key was in the
// text of a function, which is read again in each session of the application.
func TestBackslashInTheKeyWhereStringsAreNotStandard(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits ("i\" integer primary key, status text, progress integer); insert into audits values (1, 'x', 1)`)
	install(t, conn, sql.Options{Columns: map[string]string{"id": `i\`}})
	b := listen(t, dsn)
	exec(t, conn, `set standard_conforming_strings = off`)
	b.notifies(t, conn, `update audits set progress = 2`, "1")
}

// TestJSONBeyondTheEncoding: JSON can write characters that a LATIN1 database cannot hold.
func TestJSONBeyondTheEncoding(t *testing.T) {
	t.Parallel()
	_, admin := database(t)
	name := column(t, admin, `select current_database()`)[0] + "_l1"
	exec(t, admin, `create database `+name+` encoding 'LATIN1' locale 'C' template template0`)
	config := admin.Config().Copy()
	config.Database = name
	conn, err := pgx.ConnectConfig(t.Context(), config)
	testkit.NoError(t, err)
	t.Cleanup(func() { // before admin is closed
		ctx := context.WithoutCancel(t.Context())
		_ = conn.Close(ctx)
		_, err := admin.Exec(ctx, `drop database `+name+` with (force)`)
		if err != nil {
			t.Error(err)
		}
	})
	exec(t, conn, `create table audits (id integer primary key, status text, progress integer, message json);
		insert into audits values (1, 'x', 1, '"\u20ac"'), (2, 'x', 1, '"plain"')`)
	install(t, conn, sql.Options{})
	equal(t, "the view", shown(t, conn), []string{`{"audit_id":1,"status":"x","progress":1,"message":"\"\\u20ac\""}`,
		`{"audit_id":2,"status":"x","progress":1,"message":"plain"}`})
}

// --lookup and --ring did not find names in mixed case without quotes, which shells remove; --table and --column do.
func TestMixedCaseNamesOfLookupsAndRings(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create schema "Other"; create table "Other"."sharedWork" ("workId" int primary key, "projectId" text);
		create table "runnerJob" (id int primary key, status text, progress int, "workId" int); create table "rjSteps" ("jobId" int);
		create table "rjNotes" ("jobId" int); insert into "Other"."sharedWork" values (1, 'p'); insert into "runnerJob" values (7, 'x', 1, 1)`)
	for _, rings := range [][]string{{"rjSteps=jobId", "public.rjNotes=jobId"}, {`"rjSteps"="jobId"`, `"public"."rjNotes"=jobId`}} {
		for _, lookup := range []string{"workId=Other.sharedWork.workId:projectId", `"workId"="Other"."sharedWork"."workId":"projectId"`} {
			install(t, conn, sql.Options{Feed: "jobs", Table: "runnerJob", Columns: map[string]string{"user_id": "workId"},
				Lookups: []string{lookup}, Rings: rings})
			b := everything(t, dsn)
			b.notifies(t, conn, `insert into "rjSteps" values (7)`, "jobs:7")
			b.notifies(t, conn, `insert into "rjNotes" values (7)`, "jobs:7")
			equal(t, lookup, feedShown(t, conn, "progress_jobs"), []string{`{"id":7,"user_id":"p","status":"x","progress":1}`})
			uninstall(t, conn)
		}
	}
}
