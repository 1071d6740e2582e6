package sql_test

import (
	"testing"

	"auditstream/internal/sql"
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
