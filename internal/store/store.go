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

// Store reads the rows of one feed. It is safe for concurrent use when its Querier is, as a pgxpool.Pool is.
type Store struct {
	db         Querier
	feed       *Feed
	sql        statements
	sessions   func() bool // reports whether statements may be prepared; nil: never
	maxBytes   int         // the most text of one row that is shown
	cut        atomic.Uint64
	unreadable unreadable
}

// New returns a Store that reads the rows of feed through db. db must lead to the primary: with a replica's lag, states would go back.
func New(db Querier, feed *Feed) *Store {
	return &Store{db: db, feed: feed, maxBytes: DefaultMaxRowBytes, sql: statementsOf(feed)}
}

// PrepareWhile makes reads use prepared statements while sessions returns true, so that PostgreSQL does not parse and plan the read of
// one row each time. sessions must return false where a pooler may give the connection to another client between two statements. While
// it is false, the Querier's own mode applies. Call it before the first read.
func (s *Store) PrepareWhile(sessions func() bool) { s.sessions = sessions }

// Rows returns the committed state of each key, in no order. A key without a row is absent. The error wraps pgx's.
//
// It runs one query, unless a row cannot be read (a damaged page, or a handwritten view that raises an error): then the query fails for
// all rows. Rows then halves the keys until each bad row is alone, and only the State of that row has an Err. Later reads ask for
// bad rows in queries of their own, a few at a time.
func (s *Store) Rows(ctx context.Context, ids []Key) ([]*State, error) {
	readable, retry, states := s.unreadable.split(ids)
	read, err := s.isolate(ctx, readable)
	for _, id := range retry {
		if err != nil {
			break
		}
		states = append(states, read...)
		read, err = s.retry(ctx, id)
	}
	if err != nil {
		return nil, fmt.Errorf("load rows: %w", err)
	}
	return append(states, read...), nil
}

func (s *Store) query(ctx context.Context, ids []Key) ([]*State, error) {
	if s.sessions == nil || !s.sessions() {
		return s.collect(ctx, s.sql.several, s.values(ids), s.textLimit())
	}
	var states []*State
	var err error
	if len(ids) == 1 {
		states, err = s.collect(ctx, s.sql.one, pgx.QueryExecModeCacheStatement, s.value(ids[0]), s.textLimit())
	} else {
		states, err = s.collect(ctx, s.sql.several, pgx.QueryExecModeCacheStatement, s.values(ids), s.textLimit())
	}
	if staleStatement(err) {
		return s.collect(ctx, s.sql.several, pgx.QueryExecModeExec, s.values(ids), s.textLimit())
	}
	return states, err
}

// value returns a key as a query's argument.
func (s *Store) value(id Key) any {
	if s.feed.Key == IntegerKeys {
		return id.Int()
	}
	return string(id)
}

// values returns several keys as one argument.
func (s *Store) values(ids []Key) any {
	if s.feed.Key != IntegerKeys { // a type that pgx encodes without asking the server
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

// staleStatement reports whether the prepared statement is the cause of err, and not the query: the view was replaced by one with other
// types ("cached plan must not change result type" is feature_not_supported), or a pooler gave us a connection that others have used.
// pgx forgets a statement that has failed.
func staleStatement(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"0A000", "26000", "42P05"}, pgErr.Code)
}

func (s *Store) scan(row pgx.CollectableRow) (*State, error) {
	a := Row{Feed: s.feed}
	var fields *string
	err := row.Scan(&a.ID, &a.UserID, &a.UserEmail, &a.Status, &a.Progress, &a.Message, &a.GeoScore, &a.TotalPages, &a.Error, &a.GroupID, &fields)
	if err != nil {
		return nil, err
	}
	a.Progress = min(max(a.Progress, 0), 100)
	a.Fields = oneLine(deref(fields))
	if a.shorten(s.maxBytes) {
		s.cut.Add(1)
	}
	if a.Fields != "" && !json.Valid([]byte(`{"":0`+a.Fields+"}")) {
		return &State{ID: a.ID, Err: fmt.Errorf("load row %s of %s: invalid column fields: want members of a JSON object with a comma before each; "+
			"run auditstream install again", a.ID, s.feed.View)}, nil
	}
	return NewState(a), nil
}

// oneLine replaces the line breaks of a JSON text by spaces. JSON has them between its tokens only.
func oneLine(json string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, json)
}
