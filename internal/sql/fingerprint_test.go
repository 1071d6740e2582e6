package sql_test

import (
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
	"auditstream/internal/testkit"
)

// serve calls Compare only when the fingerprint has changed. So it must change a moment after anything that Compare looks at has changed, and
// must not change because of the application's normal work.
func TestU11FingerprintTellsOfEachChange(t *testing.T) {
	t.Parallel()
	dsn, conn, _ := served(t)
	install(t, conn, sql.Options{})
	look := pgtest.Connect(t, dsn)
	print := func() string {
		t.Helper()
		sum, err := sql.Fingerprint(t.Context(), look)
		testkit.NoError(t, err)
		return sum
	}
	before := print()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); before = print() { // the statistics of the install itself come late
		exec(t, conn, `update audits set progress = progress; analyze audits; select pg_sleep(0.2)`)
		if before == print() {
			break
		}
	}
	for _, change := range []string{
		`alter table audits disable trigger auditstream_update`, `alter table audits rename message to words`,
		`create or replace view auditstream.feeds as select 'audits'::text as feed, 1 as class, 2 as buckets`,
		`update auditstream.choices set options = '{}'`, `delete from auditstream.choices`, `alter table audits enable row level security`,
		`alter table audits drop constraint audits_pkey`,
	} {
		before = print()
		exec(t, conn, change)
		for deadline := time.Now().Add(2 * time.Minute); print() == before; { // the longest time after which PostgreSQL reports
			if time.Now().After(deadline) {
				t.Fatalf("%s: the fingerprint is the same", change)
			}
			exec(t, conn, `select pg_sleep(0.1)`)
		}
	}
}
