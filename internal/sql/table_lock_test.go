package sql

import (
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"
)

// Between the look-up and the lock, a table's name may have been given to a view.
func TestS2NameThatWasGivenAwayIsNotHeld(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	conn := pgtest.Connect(t, dsn)
	for name, swap := range map[string]string{
		"kept":    `select 1`,
		"renamed": `alter table public.renamed rename to was; create view public.renamed as select * from public.was`,
		"dropped": `drop table public.dropped; create view public.dropped as select 1 as id`,
		"gone":    `drop table public.gone`,
	} {
		pgtest.Psql(t, dsn, `create table public.`+name+` (id int)`)
		held := &table{Schema: "public", Name: name, Display: "public." + name}
		testkit.NoError(t, conn.QueryRow(t.Context(), `select $1::text::regclass::oid`, held.Display).Scan(&held.OID))
		pgtest.Psql(t, dsn, swap)
		if _, err := conn.Exec(t.Context(), `begin; set local search_path = pg_catalog, pg_temp`); err != nil {
			t.Fatal(err)
		}
		err := lockNames(t.Context(), conn, held)
		switch {
		case name == "kept" && err != nil:
			t.Errorf("%s: %v", name, err)
		case name == "kept":
			if _, err := pgtest.Connect(t, dsn).Exec(t.Context(), `set lock_timeout = '50ms'; alter table public.kept rename to was_kept`); err == nil ||
				!strings.Contains(err.Error(), "lock timeout") {
				t.Errorf("while it is held the name can be given away: %v", err)
			}
		case err == nil || !strings.Contains(err.Error(), "is another table than a moment ago: try again"):
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := conn.Exec(t.Context(), `rollback`); err != nil {
			t.Fatal(err)
		}
	}
}
