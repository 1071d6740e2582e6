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
