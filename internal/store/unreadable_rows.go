package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// maxIsolationQueries is how many queries one read may use to search for bad rows. With more, a read of many bad rows would take
	// longer; with fewer, the search needs more reads.
	maxIsolationQueries = 200
	// maxRetriedRows is how many known bad rows one read tries again, each in a query of its own. With more, every read takes longer;
	// with fewer, a repaired row is noticed later.
	maxRetriedRows = 8
	// unreadableTTL is how long a bad row is remembered after it was last asked for.
	unreadableTTL = time.Minute
)

// unreadable remembers the rows that cannot be read, so that they do not fail the next read of the others. Safe for concurrent use.
type unreadable struct {
	mu   sync.Mutex
	rows map[Key]*unreadableRow
}

type unreadableRow struct {
	err                  error
	lastTried, lastAsked time.Time
}

// split divides ids into those that are not known to be bad, those to retry in queries of their own, and the remembered states of the
// other bad rows. The rows that were tried longest ago are retried first.
func (u *unreadable) split(ids []Key) (readable, retry []Key, known []*State) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.rows) == 0 {
		return ids, nil, nil
	}
	now := time.Now()
	for _, id := range ids {
		if row, ok := u.rows[id]; ok {
			row.lastAsked = now
			retry = append(retry, id)
		} else {
			readable = append(readable, id)
		}
	}
	for id, row := range u.rows {
		if now.Sub(row.lastAsked) > unreadableTTL {
			delete(u.rows, id)
		}
	}
	slices.SortFunc(retry, func(a, b Key) int { return u.rows[a].lastTried.Compare(u.rows[b].lastTried) })
	retry = slices.Compact(retry)
	for _, id := range retry[min(maxRetriedRows, len(retry)):] {
		known = append(known, &State{ID: id, Err: u.rows[id].err})
	}
	return readable, retry[:min(maxRetriedRows, len(retry))], known
}

// record remembers that a row cannot be read, and returns the State that says so.
func (u *unreadable) record(view string, id Key, err error) *State {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rows == nil {
		u.rows = make(map[Key]*unreadableRow)
	}
	u.rows[id] = &unreadableRow{err: rowError(view, id, err), lastTried: time.Now(), lastAsked: time.Now()}
	return &State{ID: id, Err: u.rows[id].err}
}

// forget removes a row that can be read again.
func (u *unreadable) forget(id Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.rows, id)
}

// Unreadable returns how many of the rows asked for within the last minute cannot be read. Safe for concurrent use.
func (s *Store) Unreadable() int {
	s.unreadable.mu.Lock()
	defer s.unreadable.mu.Unlock()
	n := 0
	for _, row := range s.unreadable.rows {
		if time.Since(row.lastAsked) <= unreadableTTL {
			n++
		}
	}
	return n
}

// isolation is one search for the rows that made a read fail.
type isolation struct {
	s       *Store
	queries int
}

// isolate reads ids. When that fails because of rows, it finds them, and reads the others.
func (s *Store) isolate(ctx context.Context, ids []Key) ([]*State, error) {
	states, err := s.query(ctx, ids)
	if err == nil || !isRowError(err) || len(ids) == 0 {
		return states, err
	}
	// A read of no rows fails, too, when the cause is not a row: the view does not exist, or we may not read it.
	if _, err := s.query(ctx, []Key{}); err != nil {
		return nil, err
	}
	i := isolation{s: s}
	if len(ids) == 1 {
		return i.search(ctx, ids)
	}
	return i.halve(ctx, ids, err)
}

// search reads ids, and halves them when that fails. A trouble of the view or the server that passes (during an install, for example)
// fails one query, so the first failure alone proves nothing: a row counts as bad only after a later query for it alone has failed.
func (i *isolation) search(ctx context.Context, ids []Key) ([]*State, error) {
	states, err := i.query(ctx, ids)
	if err != nil && isRowError(err) {
		return i.halve(ctx, ids, err)
	}
	return states, err
}

// halve finds the bad rows among ids, whose read has failed with cause.
func (i *isolation) halve(ctx context.Context, ids []Key, cause error) ([]*State, error) {
	if len(ids) == 1 && isEncodingError(cause) { // no row can have this key: the database's encoding does not have its characters
		return nil, nil
	} else if len(ids) == 1 {
		return []*State{i.s.unreadable.record(i.s.feed.View, ids[0], cause)}, nil
	}
	half := len(ids) / 2
	left, err := i.query(ctx, ids[:half])
	switch {
	case err == nil && len(ids)-half > 1: // then a bad row is in the other half
		right, err := i.halve(ctx, ids[half:], cause)
		return append(left, right...), err
	case err != nil && isRowError(err):
		left, err = i.halve(ctx, ids[:half], err)
	}
	if err != nil {
		return nil, err
	}
	right, err := i.search(ctx, ids[half:])
	return append(left, right...), err
}

// query is Store.query, counted.
func (i *isolation) query(ctx context.Context, ids []Key) ([]*State, error) {
	if i.queries++; i.queries > maxIsolationQueries {
		return nil, fmt.Errorf("read rows of %s: too many of them cannot be read to find all with %d queries; the next read continues the search",
			i.s.feed.View, maxIsolationQueries)
	}
	return i.s.query(ctx, ids)
}

// retry reads one row that could not be read before, alone.
func (s *Store) retry(ctx context.Context, id Key) ([]*State, error) {
	states, err := s.query(ctx, []Key{id})
	switch {
	case err == nil:
		s.unreadable.forget(id)
		return states, nil
	case isRowError(err):
		return []*State{s.unreadable.record(s.feed.View, id, err)}, nil
	}
	return nil, err
}

// isRowError reports whether a row may be the cause of a failed query. That is any error of PostgreSQL or of pgx's conversion, except
// those about the connection (none can be opened, or SQLSTATE class 08), the transaction (25, 40), a lock (55), and an operator's
// intervention, which includes time-outs (57).
func isRowError(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false
	}
	if _, ok := errors.AsType[pgx.ScanArgError](err); ok {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && !slices.ContainsFunc([]string{"08", "25", "40", "55", "57"}, func(class string) bool { return strings.HasPrefix(pgErr.Code, class) })
}

// rowError returns the error of one row. It leaves out PostgreSQL's message, which quotes the value: no text of a row may reach the log.
func rowError(view string, id Key, err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return fmt.Errorf("load row %s: a column of %s has a type that the view must not have; run auditstream install again", id, view)
	}
	return fmt.Errorf("load row %s: a read of it from %s fails with SQLSTATE %s; read it with psql to see the cause", id, view, pgErr.Code)
}
