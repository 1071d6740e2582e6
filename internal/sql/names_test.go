package sql_test

import (
	"testing"

	"auditstream/internal/sql"
)

// The script is a template, and the key's name was put in before the template was read: names that look like a variable
// or a command of psql became syntax errors, one with \endif ended the program, and empty lines in a name were lost.
func TestNamesAreNotReadAsTemplate(t *testing.T) {
	t.Parallel()
	for _, key := range []string{":key", "a\n\\endif\n\\endif", "a\n\n\nb", `new."id"`} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			table := quoted("public", key)
			exec(t, conn, `create table `+table+` (`+quoted(key)+` integer primary key, status text, progress integer); insert into `+table+` values (1, 'x', 1)`)
			install(t, conn, sql.Options{Table: table, Columns: map[string]string{"id": key}})
			listen(t, dsn).notifies(t, conn, `update `+table+` set progress = 2`, "1")
			equal(t, "the view", shown(t, conn), []string{`{"audit_id":1,"status":"x","progress":2}`})
		})
	}
}

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
