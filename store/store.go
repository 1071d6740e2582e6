package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is the part of a pgx pool or connection that the store needs.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Store reads audits from auditstream.progress. It is as safe for concurrent use as its Querier: a pgxpool.Pool is.
type Store struct {
	db Querier
}

// New returns a Store that reads through db, which must lead to the primary: a replica's lag would show states that go
// back.
func New(db Querier) *Store { return &Store{db: db} }

// audits joins instead of using "= any($1)" because PostgreSQL derives an index condition on the application's own key
// column from an equality, whatever integer type that column has; see the view in sql/install.sql. The coalesces are
// for views written by hand.
const audits = `
select p.audit_id, p.user_id, p.user_email, coalesce(p.status, 'pending'), coalesce(p.progress, 0),
       p.message, p.geo_score, p.total_pages, p.error
from unnest($1::bigint[]) as k(id)
join auditstream.progress as p on p.audit_id = k.id`

// Audits returns the committed state of each id in one query. An id without a row is simply absent; the order is
// undefined. The error is pgx's, wrapped.
//
// A view written by hand can hold a row whose conversion fails, which fails the whole query. The ids are then halved
// until the bad one is alone, and only its State has an Err.
func (s *Store) Audits(ctx context.Context, ids []int64) ([]*State, error) {
	states, err := s.query(ctx, ids)
	switch {
	case err == nil:
		return states, nil
	case !badData(err) || len(ids) == 0:
		return nil, fmt.Errorf("load audits: %w", err)
	case len(ids) == 1:
		return []*State{{ID: ids[0], Err: unreadable(ids[0], err)}}, nil
	}
	half := len(ids) / 2
	left, err := s.Audits(ctx, ids[:half])
	if err != nil {
		return nil, err
	}
	right, err := s.Audits(ctx, ids[half:])
	if err != nil {
		return nil, err
	}
	return append(left, right...), nil
}

func (s *Store) query(ctx context.Context, ids []int64) ([]*State, error) {
	rows, err := s.db.Query(ctx, audits, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// badData reports whether a query failed because of a value: SQLSTATE class 22, data exception.
func badData(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && strings.HasPrefix(pgErr.Code, "22")
}

// unreadable leaves out PostgreSQL's message, which quotes the value: no text of a row may reach the log.
func unreadable(id int64, err error) error {
	code := "unknown"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = pgErr.Code
	}
	return fmt.Errorf("load audit %d: auditstream.progress cannot convert its row (SQLSTATE %s)", id, code)
}

func scan(row pgx.CollectableRow) (*State, error) {
	var a Audit
	err := row.Scan(&a.ID, &a.UserID, &a.UserEmail, &a.Status, &a.Progress, &a.Message, &a.GeoScore, &a.TotalPages, &a.Error)
	if err != nil {
		return nil, err
	}
	a.Progress = min(max(a.Progress, 0), 100)
	return NewState(a), nil
}
