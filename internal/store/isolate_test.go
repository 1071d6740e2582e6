package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// raisingView is a view some of whose rows raise an error with an SQLSTATE of any class.
const raisingView = `
	create table things (k bigint primary key, raises text, message text, failure text);
	create function checked(status text, raises text) returns text stable language plpgsql as $$
		begin
			if raises <> '' then raise 'secret value %', raises using errcode = raises; end if;
			return status;
		end $$;
	create schema auditstream;
	create view auditstream.progress as
	select k as audit_id, 'alice'::text as user_id, null::text as user_email, checked('failed', raises) as status, 10 as progress,
	       message, null::float8 as geo_score, null::int as total_pages, failure as error
	from things;`

func TestS7RowThatRaisesAnythingIsItsOwnProblem(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, raisingView+`
		insert into things select i, case i when 100 then 'XX001' when 200 then 'P0001' when 201 then '53200' when 300 then '42501' when 301 then '22P02' end
		from generate_series(1, 400) i`)
	db := &countingDB{Querier: pgtest.Connect(t, dsn)}
	s := store.New(db, store.Audits)
	ids := make([]store.Key, 401) // the last key has no row
	for i := range ids {
		ids[i] = store.IntKey(int64(i + 1))
	}
	codes := map[store.Key]string{"100": "XX001", "200": "P0001", "201": "53200", "300": "42501", "301": "22P02"}
	for _, most := range []int{100, 1 + len(codes)} { // the second read remembers the bad rows
		db.queries = 0
		states, err := s.Rows(t.Context(), ids)
		if err != nil || len(states) != 400 {
			t.Fatalf("%d states, %v, want 400", len(states), err)
		}
		for _, state := range states {
			code, bad := codes[state.ID]
			if bad != (state.Err != nil) || bad == state.Found {
				t.Errorf("audit %s: found %v, error %v", state.ID, state.Found, state.Err)
			}
			if bad && (!strings.Contains(state.Err.Error(), code) || strings.Contains(state.Err.Error(), "secret")) {
				t.Errorf("audit %s: %v, want the SQLSTATE %s and no text of the row", state.ID, state.Err, code)
			}
		}
		if db.queries > most {
			t.Errorf("%d queries, want %d at most", db.queries, most)
		}
		testkit.Equal(t, s.Unreadable(), len(codes), "unreadable rows")
	}

	pgtest.Psql(t, dsn, `update things set raises = null; delete from things where k = 301`)
	states, err := s.Rows(t.Context(), ids)
	if err != nil || len(states) != 399 || s.Unreadable() != 0 {
		t.Errorf("mended: %d states, %v, %d unreadable, want 399, none and 0", len(states), err, s.Unreadable())
	}
}

// With any number of bad rows, one read takes a bounded number of queries, and later reads find the rest.
func TestS7ManyUnreadableRowsAreFoundBitByBit(t *testing.T) {
	t.Parallel()
	const rows = 1000
	conn := database(t, raisingView+fmt.Sprintf(`insert into things select i, case when i %% 2 = 0 then 'XX001' end from generate_series(1, %d) i`, rows))
	db := &countingDB{Querier: conn}
	s := store.New(db, store.Audits)
	ids := make([]store.Key, rows)
	for i := range ids {
		ids[i] = store.IntKey(int64(i + 1))
	}
	for reads := 1; ; reads++ {
		db.queries = 0
		states, err := s.Rows(t.Context(), ids)
		if db.queries > 220 {
			t.Fatalf("one read took %d queries", db.queries)
		}
		if err == nil {
			if len(states) != rows || s.Unreadable() != rows/2 {
				t.Errorf("%d states, %d unreadable, want %d and %d", len(states), s.Unreadable(), rows, rows/2)
			}
			t.Log("after", reads, "reads")
			return
		}
		if reads == 20 {
			t.Fatalf("still failing after %d reads: %v", reads, err)
		}
	}
}

// A missing view is not the fault of a row, so the store does not search for one.
func TestS7WhatFailsForAllIsNotSearched(t *testing.T) {
	t.Parallel()
	db := &countingDB{Querier: pgtest.Connect(t, pgtest.New(t))}
	s := store.New(db, store.Audits)
	_, err := s.Rows(t.Context(), []store.Key{"1", "2", "3", "4", "5", "6", "7", "8"})
	if err == nil || !strings.Contains(err.Error(), "auditstream.progress") || db.queries > 2 || s.Unreadable() > 0 {
		t.Errorf("%v, %d queries, %d unreadable, want an error, 2 and none", err, db.queries, s.Unreadable())
	}
}

func TestS8HugeRowIsCut(t *testing.T) {
	t.Parallel()
	db := database(t, raisingView+`insert into things values
		(1, '', repeat('é', 20000000), 'short'), (2, '', 'no room', repeat('x', 1000)), (3, '', repeat('m', 600), repeat('e', 600)), (4, '', repeat('m', 995), 'error')`)
	s := store.New(db, store.Audits)
	s.LimitRows(1000)
	states, err := s.Rows(t.Context(), []store.Key{"1", "2", "3", "4"})
	testkit.NoError(t, err)
	for _, state := range states {
		message, failure := *state.Row.Message, *state.Row.Error
		if got := len(message) + len(failure); got > 1000 {
			t.Errorf("audit %s: %d bytes are shown, want 1000 at most", state.ID, got)
		}
		if !utf8.ValidString(message) || !utf8.ValidString(failure) {
			t.Errorf("audit %s: a letter was cut in two", state.ID)
		}
		if state.ID == "2" && message != "" {
			t.Errorf("beside an error as long as may be there is still a message, %q", message)
		}
		cut := map[store.Key][2]bool{"1": {true, false}, "2": {false, false}, "3": {true, false}, "4": {false, false}}[state.ID]
		testkit.Equal(t, [2]bool{strings.HasSuffix(message, "…"), strings.HasSuffix(failure, "…")}, cut, "message and error are cut, in audit "+string(state.ID))
	}
	testkit.Equal(t, s.Cut(), 3, "rows that were cut")
}

// failingDB fails some of its queries, like a server without free connections, or during an install.
type failingDB struct {
	store.Querier
	fail []error // the results of the next queries; nil: the query runs
}

func (m *failingDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(m.fail) > 0 {
		err := m.fail[0]
		m.fail = m.fail[1:]
		if err != nil {
			return nil, err
		}
	}
	return m.Querier.Query(ctx, sql, args...)
}

func TestS7PassingFailureMakesNoRowUnreadable(t *testing.T) {
	t.Parallel()
	db := database(t, raisingView+`insert into things select i from generate_series(1, 8) i`)
	full, err := pgx.ParseConfig("host=127.0.0.1 port=1")
	testkit.NoError(t, err)
	_, refused := pgx.ConnectConfig(t.Context(), full)
	for name, tc := range map[string]struct {
		fail []error
		ids  []store.Key
		err  bool
	}{
		"no connection, one row":                 {[]error{refused}, []store.Key{"1"}, true},
		"no connection, several rows":            {[]error{refused}, []store.Key{"1", "2", "3"}, true},
		"a moment of an install, one row":        {[]error{&pgconn.PgError{Code: "XX000"}}, []store.Key{"1"}, false},
		"a moment of an install, several rows":   {[]error{&pgconn.PgError{Code: "XX000"}}, []store.Key{"1", "2", "3", "4", "5"}, false},
		"another moment of it":                   {[]error{&pgconn.PgError{Code: "XX000"}, nil, &pgconn.PgError{Code: "42P01"}}, []store.Key{"1", "2", "3", "4", "5"}, false},
		"a lock":                                 {[]error{&pgconn.PgError{Code: "55P03"}}, []store.Key{"1", "2"}, true},
		"no connection, in the middle of it all": {[]error{&pgconn.PgError{Code: "XX000"}, nil, refused}, []store.Key{"1", "2", "3"}, true},
	} {
		s := store.New(&failingDB{db, tc.fail}, store.Audits)
		if states, err := s.Rows(t.Context(), tc.ids); (err != nil) != tc.err || s.Unreadable() > 0 || err == nil && len(states) != len(tc.ids) {
			t.Errorf("%s: %d states, %v, %d unreadable; want an error: %v, and none unreadable", name, len(states), err, s.Unreadable(), tc.err)
		}
		if states, err := s.Rows(t.Context(), tc.ids); err != nil || len(states) != len(tc.ids) {
			t.Errorf("%s, afterwards: %d states, %v", name, len(states), err)
		}
	}
}
