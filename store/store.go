package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	sessions   func() bool // nil: never
	maxBytes   int         // of the text that is shown of a row
	cut        atomic.Uint64
	unreadable unreadable
}

// New returns a Store that reads through db, which must lead to the primary: a replica's lag would show states that go
// back.
func New(db Querier) *Store { return &Store{db: db, maxBytes: DefaultMaxRowBytes} }

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

// columns bounds what one row may cost: of a compressed text PostgreSQL then unpacks only the beginning. A token is never as long
// as what is left of an owner's name, so that a part of one is nobody's.
const columns = `
select p.audit_id, left(p.user_id::text, 1048576), left(p.user_email::text, 1048576), left(coalesce(p.status::text, 'pending'), 1000), coalesce(p.progress, 0),
       left(p.message::text, $2::int), p.geo_score, p.total_pages, left(p.error::text, $2::int)`

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
		return s.collect(ctx, audits, integers(ids), s.asked())
	}
	var states []*State
	var err error
	if len(ids) == 1 {
		states, err = s.collect(ctx, oneAudit, pgx.QueryExecModeCacheStatement, ids[0].Int(), s.asked())
	} else {
		states, err = s.collect(ctx, audits, pgx.QueryExecModeCacheStatement, integers(ids), s.asked())
	}
	if staleStatement(err) {
		return s.collect(ctx, audits, pgx.QueryExecModeExec, integers(ids), s.asked())
	}
	return states, err
}

// integers are keys as PostgreSQL gets them.
func integers(ids []Key) []int64 {
	numbers := make([]int64, len(ids)) // not null
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
	var a Audit
	var id int64
	err := row.Scan(&id, &a.UserID, &a.UserEmail, &a.Status, &a.Progress, &a.Message, &a.GeoScore, &a.TotalPages, &a.Error)
	if err != nil {
		return nil, err
	}
	a.ID = IntKey(id)
	a.Progress = min(max(a.Progress, 0), 100)
	if a.shorten(s.maxBytes) {
		s.cut.Add(1)
	}
	return NewState(a), nil
}
