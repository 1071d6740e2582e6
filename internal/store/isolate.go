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
	// maxIsolating is how many queries one read may take to find the rows because of which it failed.
	maxIsolating = 200
	// maxRetried is how many rows that could not be read before one read tries again, each in a query of its own.
	maxRetried = 8
	// unreadableFor is for how long a row counts as unreadable that nobody asks for any more.
	unreadableFor = time.Minute
)

// unreadable remembers rows that cannot be read, so that the next read of all the others does not fail because of them again.
type unreadable struct {
	mu   sync.Mutex
	rows map[Key]*unreadableRow
}

type unreadableRow struct {
	err          error
	tried, asked time.Time
}

// split takes out of ids what is known to be unreadable: again is to be tried, the rest is answered from memory.
func (u *unreadable) split(ids []Key) (readable, again []Key, known []*State) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.rows) == 0 {
		return ids, nil, nil
	}
	now := time.Now()
	for _, id := range ids {
		if row, ok := u.rows[id]; ok {
			row.asked = now
			again = append(again, id)
		} else {
			readable = append(readable, id)
		}
	}
	for id, row := range u.rows {
		if now.Sub(row.asked) > unreadableFor {
			delete(u.rows, id)
		}
	}
	slices.SortFunc(again, func(a, b Key) int { return u.rows[a].tried.Compare(u.rows[b].tried) })
	again = slices.Compact(again)
	for _, id := range again[min(maxRetried, len(again)):] {
		known = append(known, &State{ID: id, Err: u.rows[id].err})
	}
	return readable, again[:min(maxRetried, len(again))], known
}

func (u *unreadable) found(id Key, err error) *State {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rows == nil {
		u.rows = make(map[Key]*unreadableRow)
	}
	u.rows[id] = &unreadableRow{err: cannotRead(id, err), tried: time.Now(), asked: time.Now()}
	return &State{ID: id, Err: u.rows[id].err}
}

func (u *unreadable) recovered(id Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.rows, id)
}

// Unreadable returns how many rows that somebody asks for cannot be read. Safe for concurrent use.
func (s *Store) Unreadable() int {
	s.unreadable.mu.Lock()
	defer s.unreadable.mu.Unlock()
	n := 0
	for _, row := range s.unreadable.rows {
		if time.Since(row.asked) <= unreadableFor {
			n++
		}
	}
	return n
}

// isolation is the search for the rows because of which a read has failed.
type isolation struct {
	s       *Store
	queries int
}

// isolate reads ids, and finds those because of which that fails.
func (s *Store) isolate(ctx context.Context, ids []Key) ([]*State, error) {
	states, err := s.query(ctx, ids)
	if err == nil || !ofARow(err) || len(ids) == 0 {
		return states, err
	}
	// What fails without any row is no row's fault: there is no such view, or no right to read it.
	if _, err := s.query(ctx, []Key{}); err != nil {
		return nil, err
	}
	i := isolation{s: s}
	if len(ids) == 1 {
		return i.search(ctx, ids)
	}
	return i.halve(ctx, ids, err)
}

// search reads ids, and halves them when that fails. What is wrong with the view or the server for a moment, as during an install, is
// so for one query: no row counts as unreadable that was not asked for alone, after the first failure.
func (i *isolation) search(ctx context.Context, ids []Key) ([]*State, error) {
	states, err := i.query(ctx, ids)
	if err != nil && ofARow(err) {
		return i.halve(ctx, ids, err)
	}
	return states, err
}

// halve finds the rows among ids because of which they could not be read.
func (i *isolation) halve(ctx context.Context, ids []Key, why error) ([]*State, error) {
	if len(ids) == 1 && noSuchText(why) { // a key that the database's encoding does not have
		return nil, nil
	} else if len(ids) == 1 {
		return []*State{i.s.unreadable.found(ids[0], why)}, nil
	}
	half := len(ids) / 2
	left, err := i.query(ctx, ids[:half])
	switch {
	case err == nil && len(ids)-half > 1: // then it is in the other half
		right, err := i.halve(ctx, ids[half:], why)
		return append(left, right...), err
	case err != nil && ofARow(err):
		left, err = i.halve(ctx, ids[:half], err)
	}
	if err != nil {
		return nil, err
	}
	right, err := i.search(ctx, ids[half:])
	return append(left, right...), err
}

func (i *isolation) query(ctx context.Context, ids []Key) ([]*State, error) {
	if i.queries++; i.queries > maxIsolating {
		return nil, fmt.Errorf("too many rows of %s cannot be read; the search for them goes on with the next read", i.s.feed.View)
	}
	return i.s.query(ctx, ids)
}

// again reads one row that could not be read before.
func (s *Store) again(ctx context.Context, id Key) ([]*State, error) {
	states, err := s.query(ctx, []Key{id})
	switch {
	case err == nil:
		s.unreadable.recovered(id)
		return states, nil
	case ofARow(err):
		return []*State{s.unreadable.found(id, err)}, nil
	}
	return nil, err
}

// ofARow reports whether a query may have failed because of a row: whatever PostgreSQL or pgx found wrong, unless it is about the
// connection (none can be had, or SQLSTATE class 08), the transaction (25, 40), a lock (55) or what an operator did, a time-out among
// it (57).
func ofARow(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false
	}
	if _, ok := errors.AsType[pgx.ScanArgError](err); ok {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && !slices.ContainsFunc([]string{"08", "25", "40", "55", "57"}, func(class string) bool { return strings.HasPrefix(pgErr.Code, class) })
}

// cannotRead leaves out PostgreSQL's message, which quotes the value: no text of a row may reach the log.
func cannotRead(id Key, err error) error {
	code := "none: its type is not what the view must have"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = pgErr.Code
	}
	return fmt.Errorf("load audit %s: its row of auditstream.progress cannot be read (SQLSTATE %s)", id, code)
}
