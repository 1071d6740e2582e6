package store_test

import (
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
)

func yes() bool { return true }

// Without staleStatement, each of these cases fails every later read of the connection.
func TestPreparedReadsGoOnWhenTheStatementIsNoGood(t *testing.T) {
	t.Parallel()
	const view = ` as select k as audit_id, 'alice'::text as user_id, null::text as user_email, state as status, 10 as progress,
		null::text as message, null::float8 as geo_score, null::int as total_pages, null::text as error from things`
	testkit.Each(t, map[string]string{
		"the view is installed anew": `drop view auditstream.progress; create view auditstream.progress` + view,
		"the statements are gone":    `deallocate all`,
		"the view has other types":   `drop view auditstream.progress; create view auditstream.progress as select k::int as audit_id, 'alice'::varchar as user_id, null::varchar as user_email, state::varchar as status, 10::bigint as progress, null::varchar as message, null::float4 as geo_score, null::bigint as total_pages, null::varchar as error from things`,
	}, func(t *testing.T, _ string, sql string) {
		db := database(t, handwrittenView)
		audits := store.New(db, store.Audits)
		audits.PrepareWhile(yes)
		read := func(ids ...store.Key) {
			t.Helper()
			states, err := audits.Rows(t.Context(), ids)
			if err != nil || len(states) != len(ids) {
				t.Fatalf("%d states, %v, want %d", len(states), err, len(ids))
			}
			for _, s := range states {
				if !s.Found || s.Err != nil {
					t.Errorf("%+v", s)
				}
			}
		}
		for range 8 { // PostgreSQL may keep the plan from the sixth execution on
			read("1")
			read("1", "2")
		}
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			read("1")
			read("1", "2")
		}
	})
}

// A connection from a pooler may already have prepared statements of the same names, from its last client.
func TestPreparedReadsGoOnWhenTheNamesAreTaken(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, handwrittenView)
	first, second := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	read := func(db *pgx.Conn, ids ...store.Key) {
		t.Helper()
		audits := store.New(db, store.Audits)
		audits.PrepareWhile(yes)
		if states, err := audits.Rows(t.Context(), ids); err != nil || len(states) != len(ids) {
			t.Fatalf("%d states, %v, want %d", len(states), err, len(ids))
		}
	}
	read(first, "1")
	read(first, "1", "2")
	rows, err := first.Query(t.Context(), `select name from pg_prepared_statements where statement like '%auditstream.progress%'`, execMode)
	testkit.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) != 2 {
		t.Fatalf("statements %q, %v, want two", names, err)
	}
	for _, name := range names {
		if _, err := second.Exec(t.Context(), `prepare `+pgx.Identifier{name}.Sanitize()+` as select 1`); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		read(second, "1")
		read(second, "1", "2")
	}
}

// Every mode of executing statements gives the same answer, also for a bad row alone.
func TestPreparedReadsFindTheSame(t *testing.T) {
	t.Parallel()
	db := database(t, handwrittenView)
	plain, prepared := store.New(db, store.Audits), store.New(db, store.Audits)
	prepared.PrepareWhile(yes)
	for _, ids := range [][]store.Key{nil, {"1"}, {"3"}, {"99"}, {"-1"}, {"1", "2", "3", "4", "99"}} {
		want, err := plain.Rows(t.Context(), ids)
		testkit.NoError(t, err)
		got, err := prepared.Rows(t.Context(), ids)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%v: %d states, %v, want %d", ids, len(got), err, len(want))
		}
		byID := make(map[store.Key]*store.State)
		for _, s := range got {
			byID[s.ID] = s
		}
		for _, s := range want {
			if other := byID[s.ID]; other == nil || !s.Same(other) {
				t.Errorf("%v: %+v, want %+v", ids, other, s)
			}
		}
	}
}

// Without PrepareWhile, no prepared statement stays behind on the connection.
func TestNothingIsPreparedWithoutSessions(t *testing.T) {
	t.Parallel()
	db := database(t, handwrittenView)
	sessions := false
	audits := store.New(execModeDB{db}, store.Audits)
	audits.PrepareWhile(func() bool { return sessions })
	for _, want := range []int{0, 1} {
		if _, err := audits.Rows(t.Context(), []store.Key{"1"}); err != nil {
			t.Fatal(err)
		}
		var n int
		testkit.NoError(t, db.QueryRow(t.Context(), `select count(*) from pg_prepared_statements where statement like '%auditstream.progress%'`, execMode).Scan(&n))
		if n != want {
			t.Errorf("%d statements are prepared, want %d", n, want)
		}
		sessions = true
	}
}

func BenchmarkRead(b *testing.B) {
	db := database(b, `create table things (k bigint primary key, state text);
		insert into things select n, 'running' from generate_series(1, 1000) n;
		create schema auditstream;
		create view auditstream.progress as select k as audit_id, 'alice'::text as user_id, null::text as user_email, state as status,
			10 as progress, null::text as message, null::float8 as geo_score, null::int as total_pages, null::text as error from things`)
	for name, sessions := range map[string]bool{"plain": false, "prepared": true} {
		b.Run(name, func(b *testing.B) {
			audits := store.New(execModeDB{db}, store.Audits)
			audits.PrepareWhile(func() bool { return sessions })
			for n := int64(0); b.Loop(); n++ {
				if _, err := audits.Rows(b.Context(), []store.Key{store.IntKey(n%1000 + 1)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
