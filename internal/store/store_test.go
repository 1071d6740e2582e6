package store_test

import (
	"fmt"
	"slices"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database returns a connection to a database of the test's own in which a script has been run.
func database(tb testing.TB, script string) *pgx.Conn {
	tb.Helper()
	dsn := pgtest.New(tb)
	pgtest.Psql(tb, dsn, script)
	return pgtest.Connect(tb, dsn)
}

// handwrittenView is a view for an unusual schema, with NULLs and with a conversion that fails for one row.
const handwrittenView = `
	create table things (k bigint, state text, pct text);
	insert into things values (1, 'running', '10'), (2, null, null), (3, 'running', 'a secret text'), (4, 'completed', '700');
	create schema auditstream;
	create view auditstream.progress as
	select k as audit_id, 'alice'::text as user_id, null::text as user_email, state as status, pct::int as progress,
	       null::text as message, null::float8 as geo_score, null::int as total_pages, null::text as error
	from things`

func TestAudits(t *testing.T) {
	t.Parallel()
	db := database(t, handwrittenView)
	audits := store.New(db, store.Audits)

	states, err := audits.Rows(t.Context(), []store.Key{"1", "2", "4", "99"})
	testkit.NoError(t, err)
	got := make(map[store.Key]string)
	for _, s := range states {
		got[s.ID] = string(s.JSON)
	}
	want := map[store.Key]string{
		"1": `{"audit_id":1,"status":"running","progress":10}`,
		"2": `{"audit_id":2,"status":"pending","progress":0}`,
		"4": `{"audit_id":4,"status":"completed","progress":100}`,
	}
	if len(got) != len(want) {
		t.Errorf("got %d audits, want %d: an id without a row is absent", len(got), len(want))
	}
	for id := range want {
		if got[id] != want[id] {
			t.Errorf("audit %s: got %s, want %s", id, got[id], want[id])
		}
	}
}

// Every user_id that [store.Row.Owner] takes for blank must be blank for the query of Owned, too. Otherwise "all of mine" misses rows.
func TestBlankUserIDLeavesTheAddressInTheDatabaseToo(t *testing.T) {
	t.Parallel()
	db := database(t, `
		create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		create schema auditstream;
		create table things (k bigint, owner text collate ci, mail text);
		insert into things values (1, null, 'a@b.c'), (2, '', 'a@b.c'), (3, ' ', 'a@b.c'), (4, E'\t\u00a0', 'a@b.c'), (5, E'\u200b', 'A@b.c'), (6, 'x', 'a@b.c'), (7, ' ', ' ');
		create view auditstream.progress as
		select k as audit_id, owner as user_id, mail as user_email, 'running'::text as status, 1 as progress,
		       null::text as message, null::float8 as geo_score, null::int as total_pages, null::text as error
		from things`)
	audits := store.New(db, store.Audits)
	viewer := store.Viewer{Email: "a@b.c"}
	keys, _, err := audits.Owned(t.Context(), viewer.Owners())
	testkit.NoError(t, err)
	slices.Sort(keys)
	testkit.Equal(t, fmt.Sprint(keys), "[1 2 3 4 5]", "found")
	states, err := audits.Rows(t.Context(), keys)
	testkit.NoError(t, err)
	for _, s := range states {
		if s.Err != nil || !s.Row.OwnedBy(viewer) {
			t.Errorf("%s is not the viewer's", s.ID)
		}
	}
}
