package sql_test

import (
	"fmt"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
)

// An older serve continues while the schema is upgraded: what it reads and hears is the same in each version. How it says what it watches is
// not, so across versions the safety net finds changes.
func TestInterfaceOfServeIsTheSameInEachVersion(t *testing.T) {
	t.Parallel()
	if sql.Channel != "auditstream" {
		t.Errorf("the channel is %s", sql.Channel)
	}
	for version := 1; version <= sql.SchemaVersion; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			dsn, conn := database(t)
			old(t, dsn, version)
			equal(t, "the view", column(t, conn, `select attname || ' ' || format_type(atttypid, null) from pg_attribute
				where attrelid = 'auditstream.progress'::regclass and attnum > 0 order by attnum`), []string{
				"audit_id bigint", "user_id text", "user_email text", "status text", "progress integer",
				"message text", "geo_score double precision", "total_pages integer", "error text",
			})
			b := listener{pgtest.Connect(t, dsn)}
			exec(t, b.conn, `listen auditstream`)
			b.watch(t, 1, 2)
			b.notifies(t, conn, `update audits set progress = 20`, "1")
			b.notifies(t, conn, `delete from audits where id = 1`, "1")
			b.notifies(t, conn, `truncate audits`, "*")
		})
	}
}
