package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is the part of a pgx pool or connection that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Store reads audits from auditstream.progress. It is as safe for concurrent use as its Querier: a pgxpool.Pool is.
type Store struct {
	db         Querier
	feed       *Feed
	sql        statements
	sessions   func() bool // nil: never
	maxBytes   int         // of the text that is shown of a row
	cut        atomic.Uint64
	unreadable unreadable
}

// New returns a Store of a feed's rows that reads through db, which must lead to the primary: a replica's lag would show states that go
// back.
func New(db Querier, feed *Feed) *Store {
	return &Store{db: db, feed: feed, maxBytes: DefaultMaxRowBytes, sql: statementsOf(feed)}
}

// Feed is what New was given.
func (s *Store) Feed() *Feed { return s.feed }

// PrepareWhile has reads use prepared statements while sessions returns true: PostgreSQL then neither parses nor plans the
// read of one audit again. sessions must be false where a pooler may hand the connection to somebody else between two
// statements. Otherwise the Querier's own mode counts. Call it before the first read.
func (s *Store) PrepareWhile(sessions func() bool) { s.sessions = sessions }

// Audits returns the committed state of each id. An id without a row is simply absent; the order is undefined. The error is
// pgx's, wrapped.
//
// It is one query, unless a row cannot be read, whatever the reason (a damaged page, a view written by hand that raises an error):
// that fails a query for all rows. The ids are then halved until each such row is alone, and only its State has an Err. The
// next reads ask for it in queries of their own, few of them at a time.
func (s *Store) Audits(ctx context.Context, ids []Key) ([]*State, error) {
	readable, again, states := s.unreadable.split(ids)
	read, err := s.isolate(ctx, readable)
	for _, id := range again {
		if err != nil {
			break
		}
		states = append(states, read...)
		read, err = s.again(ctx, id)
	}
	if err != nil {
		return nil, fmt.Errorf("load audits: %w", err)
	}
	return append(states, read...), nil
}

func (s *Store) query(ctx context.Context, ids []Key) ([]*State, error) {
	if s.sessions == nil || !s.sessions() {
		return s.collect(ctx, s.sql.several, s.values(ids), s.asked())
	}
	var states []*State
	var err error
	if len(ids) == 1 {
		states, err = s.collect(ctx, s.sql.one, pgx.QueryExecModeCacheStatement, s.value(ids[0]), s.asked())
	} else {
		states, err = s.collect(ctx, s.sql.several, pgx.QueryExecModeCacheStatement, s.values(ids), s.asked())
	}
	if staleStatement(err) {
		return s.collect(ctx, s.sql.several, pgx.QueryExecModeExec, s.values(ids), s.asked())
	}
	return states, err
}

// value is a key as PostgreSQL gets it, and values are several.
func (s *Store) value(id Key) any {
	if s.feed.Key == IntegerKeys {
		return id.Int()
	}
	return string(id)
}

func (s *Store) values(ids []Key) any {
	if s.feed.Key != IntegerKeys { // of a type that pgx knows without asking for the statement's
		texts := make([]string, len(ids))
		for k, id := range ids {
			texts[k] = string(id)
		}
		return texts
	}
	numbers := make([]int64, len(ids))
	for k, id := range ids {
		numbers[k] = id.Int()
	}
	return numbers
}

func (s *Store) collect(ctx context.Context, sql string, args ...any) ([]*State, error) {
	rows, err := s.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, s.scan)
}

// staleStatement reports whether the statement was at fault, not what it asks: the view was installed anew with other types
// ("cached plan must not change result type" is feature_not_supported), or the connection is another's after all. pgx forgets
// a statement that has failed.
func staleStatement(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"0A000", "26000", "42P05"}, pgErr.Code)
}

func (s *Store) scan(row pgx.CollectableRow) (*State, error) {
	a := Audit{Feed: s.feed}
	var number int64
	var fields *string
	id := any(&number)
	if s.feed.Key != IntegerKeys {
		id = (*string)(&a.ID)
	}
	err := row.Scan(id, &a.UserID, &a.UserEmail, &a.Status, &a.Progress, &a.Message, &a.GeoScore, &a.TotalPages, &a.Error, &a.GroupID, &fields)
	if err != nil {
		return nil, err
	}
	if s.feed.Key == IntegerKeys {
		a.ID = IntKey(number)
	}
	a.Progress = min(max(a.Progress, 0), 100)
	a.Fields = oneLine(deref(fields))
	if a.shorten(s.maxBytes) {
		s.cut.Add(1)
	}
	if a.Fields != "" && !json.Valid([]byte(`{"":0`+a.Fields+"}")) {
		return &State{ID: a.ID, Err: fmt.Errorf("row %s of %s: its fields are no JSON", a.ID, s.feed.View)}, nil
	}
	return NewState(a), nil
}

// oneLine is JSON without line breaks, which in JSON are only between its parts.
func oneLine(json string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, json)
}
