package store_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

// sparseView is a view of text columns and NULLs, some of whose rows have no key.
const sparseView = `
	create table sparse (k bigint, owner text, email text, pct int, score float8);
	insert into sparse values (1, null, null, null, null), (2, '', 'A@b.c', -5, 'NaN'), (3, 'alice', null, 101, '-Infinity'), (null, 'x', null, 1, 1);
	create schema auditstream;
	create view auditstream.progress as
	select k as audit_id, owner as user_id, email as user_email, null::text as status, pct as progress,
	       null::text as message, score as geo_score, null::int as total_pages, 'e'::text as error
	from sparse`

func TestNullsAndNumbersOutOfRange(t *testing.T) {
	t.Parallel()
	db := database(t, sparseView)
	states, err := store.New(db, store.Audits).Rows(t.Context(), []store.Key{"3", "1", "2", "0", "-1"})
	testkit.NoError(t, err)
	slices.SortFunc(states, func(a, b *store.State) int { return a.ID.Compare(b.ID) })
	want := []string{
		`{"audit_id":1,"status":"pending","progress":0}`,
		`{"audit_id":2,"status":"pending","progress":0}`,
		`{"audit_id":3,"status":"pending","progress":100}`,
	}
	if len(states) != len(want) {
		t.Fatalf("%d states, want %d", len(states), len(want))
	}
	for i, s := range states {
		if string(s.JSON) != want[i] || !s.Found || s.Err != nil || !s.Noticed.IsZero() {
			t.Errorf("got %+v, want %s", s, want[i])
		}
	}
	if !states[1].Row.OwnedBy(store.Viewer{Email: "a@B.C"}) || !states[2].Row.OwnedBy(store.Viewer{Subject: "alice"}) || states[0].Row.OwnedBy(store.Viewer{}) {
		t.Error("the owners are not those of the rows")
	}
}

func TestNoIdsIsAQueryAllTheSame(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	db := pgtest.Connect(t, dsn)
	if _, err := store.New(db, store.Audits).Rows(t.Context(), nil); err == nil {
		t.Error("no error without the view: readiness asks with no ids")
	}
	pgtest.Psql(t, dsn, sparseView)
	for _, ids := range [][]store.Key{nil, {}} {
		if states, err := store.New(db, store.Audits).Rows(t.Context(), ids); err != nil || len(states) != 0 {
			t.Errorf("%d states, %v", len(states), err)
		}
	}
}

func TestIdAskedForTwiceIsNoError(t *testing.T) {
	t.Parallel()
	db := database(t, sparseView)
	states, err := store.New(db, store.Audits).Rows(t.Context(), []store.Key{"1", "1"})
	if err != nil || len(states) == 0 || states[0].ID != "1" {
		t.Errorf("%v, %v", states, err)
	}
}

// The server's role needs the right to read the view, and no other.
func TestRoleWithSelectOnTheViewAlone(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	role, password := "store_test_"+strings.ToLower(rand.Text()), rand.Text()
	pgtest.Psql(t, dsn, handwrittenView+`;
		revoke all on schema public from public;
		create role `+role+` login password '`+password+`';
		grant usage on schema auditstream to `+role+`;
		grant select on auditstream.progress to `+role)
	admin := pgtest.Connect(t, dsn)
	t.Cleanup(func() { // roles belong to the whole server
		if _, err := admin.Exec(context.WithoutCancel(t.Context()), `drop owned by `+role+`; drop role `+role); err != nil {
			t.Errorf("drop role: %v", err)
		}
	})
	u, err := url.Parse(dsn)
	testkit.NoError(t, err)
	u.User = url.UserPassword(role, password)
	db := pgtest.Connect(t, u.String())
	states, err := store.New(db, store.Audits).Rows(t.Context(), []store.Key{"1", "3"})
	if err != nil || len(states) != 2 {
		t.Errorf("%d states, %v, want 2", len(states), err)
	}
	if _, err := db.Exec(t.Context(), `select from things`); err == nil {
		t.Error("the role can read the table: the test proves nothing")
	}
}

// countingDB counts queries.
type countingDB struct {
	store.Querier
	queries int
}

func (c *countingDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.queries++
	return c.Querier.Query(ctx, sql, args...)
}

func TestPoisonedRowIsFoundInFewQueries(t *testing.T) {
	t.Parallel()
	conn := database(t, handwrittenView) // audit 3 is poisoned
	ids := make([]store.Key, 1024)
	for i := range ids {
		ids[i] = store.IntKey(int64(i + 1))
	}
	db := &countingDB{Querier: conn}
	if _, err := store.New(db, store.Audits).Rows(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	if most := 1 + 2*10; db.queries > most {
		t.Errorf("%d queries for 1024 ids, want %d at most", db.queries, most)
	}
}
