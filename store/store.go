package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	db       Querier
	sessions func() bool // nil: never
}

// New returns a Store that reads through db, which must lead to the primary: a replica's lag would show states that go
// back.
func New(db Querier) *Store { return &Store{db: db} }

// PrepareWhile has reads use prepared statements while sessions returns true: PostgreSQL then neither parses nor plans the
// read of one audit again. sessions must be false where a pooler may hand the connection to somebody else between two
// statements. Otherwise the Querier's own mode counts. Call it before the first read.
func (s *Store) PrepareWhile(sessions func() bool) { s.sessions = sessions }

// audits joins instead of using "= any($1)" because PostgreSQL derives an index condition on the application's own key
// column from an equality, whatever integer type that column has; see the view in sql/install.sql. The coalesces are
// for views written by hand.
const audits = columns + `
from unnest($1::bigint[]) as k(id)
join auditstream.progress as p on p.audit_id = k.id`

// oneAudit is the read of an update that comes alone. Of an array PostgreSQL does not know how long it is, and plans each
// time it is prepared or not (plancache.c, choose_custom_plan); the plan for one value is kept.
const oneAudit = columns + `
from auditstream.progress as p where p.audit_id = $1::bigint`

const columns = `
select p.audit_id, p.user_id, p.user_email, coalesce(p.status, 'pending'), coalesce(p.progress, 0),
       p.message, p.geo_score, p.total_pages, p.error`

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
	if s.sessions == nil || !s.sessions() {
		return s.collect(ctx, audits, ids)
	}
	var states []*State
	var err error
	if len(ids) == 1 {
		states, err = s.collect(ctx, oneAudit, pgx.QueryExecModeCacheStatement, ids[0])
	} else {
		states, err = s.collect(ctx, audits, pgx.QueryExecModeCacheStatement, ids)
	}
	if staleStatement(err) {
		return s.collect(ctx, audits, pgx.QueryExecModeExec, ids)
	}
	return states, err
}

func (s *Store) collect(ctx context.Context, sql string, args ...any) ([]*State, error) {
	rows, err := s.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// staleStatement reports whether the statement was at fault, not what it asks: the view was installed anew with other types
// ("cached plan must not change result type" is feature_not_supported), or the connection is another's after all. pgx forgets
// a statement that has failed.
func staleStatement(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"0A000", "26000", "42P05"}, pgErr.Code)
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
