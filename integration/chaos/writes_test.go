package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// errRollback makes a transaction that is meant to be rolled back.
var errRollback = errors.New("rolled back")

// transact runs a transaction and tells done when it was committed. Where the outcome is unknown, because PostgreSQL
// was killed at that moment, it is looked up afterwards: there says whether the change is in the table.
func (a *application) transact(ctx context.Context, kind writeKind, do func(pgx.Tx) error, there func() (bool, error), done func(sent, acked time.Time)) {
	began := time.Now()
	conn, err := a.pool.Acquire(ctx)
	if err != nil {
		a.excuse(kind, began, err)
		return
	}
	defer conn.Release()
	start := time.Now()
	tx, err := conn.Begin(ctx)
	if err != nil {
		a.excuse(kind, began, err)
		return
	}
	if err := do(tx); err != nil {
		rollbackErr := tx.Rollback(ctx)
		switch {
		case !errors.Is(err, errRollback):
			a.excuse(kind, began, err)
		case rollbackErr != nil:
			a.excuse(kind, began, rollbackErr)
		default:
			a.ledger.count(kind)
		}
		return
	}
	sent := time.Now()
	if err := tx.Commit(ctx); err != nil {
		a.excuse(kind, began, err)
		if !a.lookUp(ctx, there) {
			return
		}
	}
	acked := time.Now()
	done(sent, acked)
	a.ledger.count(kind)
	if kind == writeUpdate {
		a.mu.Lock()
		a.updates = append(a.updates, timed{start, acked.Sub(start)})
		a.mu.Unlock()
	}
}

// lookUp asks until PostgreSQL answers.
func (a *application) lookUp(ctx context.Context, there func() (bool, error)) bool {
	for {
		found, err := there()
		if err == nil || errors.Is(err, pgx.ErrNoRows) {
			return err == nil && found
		}
		if !pause(ctx, 100*time.Millisecond) {
			return false
		}
	}
}

// update makes new versions of audits in one transaction.
func (a *application) update(ctx context.Context, w plannedWrite, slots []*slot, r *rand.Rand) {
	made := make([]version, len(slots))
	renew := func() {
		for k, s := range slots {
			made[k] = s.next(change(w.kind, s.h.current().row, r))
		}
	}
	there := func() (bool, error) {
		var message string
		err := a.pool.QueryRow(ctx, "select message from audits where id = $1", slots[0].h.audit).Scan(&message)
		return message == made[0].row.message, err
	}
	renew()
	a.transact(ctx, w.kind, func(tx pgx.Tx) error {
		if w.kind == writeSavepoint {
			savepoint, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if err := set(ctx, savepoint, slots, made); err != nil {
				return err
			}
			if err := savepoint.Rollback(ctx); err != nil {
				return err
			}
			renew() // the versions that were rolled back must never be seen
		}
		if err := set(ctx, tx, slots, made); err != nil {
			return err
		}
		pause(ctx, w.hold)
		if w.kind == writeRollback {
			return errRollback
		}
		return nil
	}, there, func(sent, acked time.Time) {
		for k, s := range slots {
			made[k].sent, made[k].acked = sent, acked
			s.h.versions = append(s.h.versions, made[k])
		}
	})
}

// set updates the rows of audits with one statement.
func set(ctx context.Context, tx pgx.Tx, slots []*slot, made []version) error {
	var ids []int64
	var owners, statuses, messages []string
	var progresses []int
	var scores []*float64
	var pages []*int
	var errs []*string
	for k, s := range slots {
		r := made[k].row
		ids = append(ids, s.h.audit)
		owners, statuses, messages = append(owners, r.owner), append(statuses, r.status), append(messages, r.message)
		progresses, scores = append(progresses, r.progress), append(scores, r.geoScore)
		pages, errs = append(pages, r.pages), append(errs, r.err)
	}
	tag, err := tx.Exec(ctx, `
		update audits a set user_id = n.user_id, status = n.status, progress = n.progress, message = n.message,
		       geo_score = n.geo_score, total_pages = n.total_pages, error = n.error, updated_at = now()
		from unnest($1::bigint[], $2::text[], $3::text[], $4::int[], $5::text[], $6::float8[], $7::int[], $8::text[])
		     as n(id, user_id, status, progress, message, geo_score, total_pages, error)
		where a.id = n.id`, ids, owners, statuses, progresses, messages, scores, pages, errs)
	if err == nil && tag.RowsAffected() != int64(len(slots)) {
		err = errors.New("update: " + tag.String() + ": rows are missing")
	}
	return err
}

// succeed puts an audit where the last one has ended or was deleted: a new one, or sometimes the deleted one again.
func (a *application) succeed(ctx context.Context, s *slot, r *rand.Rand) {
	const kind = "successor"
	began := time.Now()
	h := s.h
	if h == nil || !s.gone() || r.IntN(3) > 0 {
		var id int64
		if err := a.pool.QueryRow(ctx, "select nextval(pg_get_serial_sequence('audits', 'id'))").Scan(&id); err != nil {
			a.excuse(kind, began, err)
			return
		}
		h = a.ledger.open(id)
	}
	h.last++
	v := version{n: h.last, row: row{owner: s.owner(), status: "pending"}}
	v.row.message = numbered("?", h.last)
	if r.IntN(2) == 0 {
		v.row.status = "running"
	}
	there := func() (found bool, err error) {
		err = a.pool.QueryRow(ctx, "select exists (select from audits where id = $1)", h.audit).Scan(&found)
		return found, err
	}
	a.transact(ctx, kind, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into audits (id, url, user_id, status, message) overriding system value
			values ($1, 'https://example.com', $2, $3, $4)`, h.audit, v.row.owner, v.row.status, v.row.message)
		return err
	}, there, func(sent, acked time.Time) {
		v.sent, v.acked = sent, acked
		h.versions = append(h.versions, v)
		s.h = h
		s.audit.Store(h.audit)
	})
}

// owner is who has the slot's audits unless they change hands.
func (s *slot) owner() string { return []string{"alice", "bob"}[s.n%2] }

func (s *slot) bury(sent, acked time.Time) {
	v := s.next(row{})
	v.gone, v.sent, v.acked = true, sent, acked
	s.h.versions = append(s.h.versions, v)
}

func (a *application) remove(ctx context.Context, s *slot) {
	there := func() (gone bool, err error) {
		err = a.pool.QueryRow(ctx, "select not exists (select from audits where id = $1)", s.h.audit).Scan(&gone)
		return gone, err
	}
	a.transact(ctx, writeDelete, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "delete from audits where id = $1", s.h.audit)
		return err
	}, there, s.bury)
}

// truncate removes every audit, and so of all slots; those that have ended before go too.
func (a *application) truncate(ctx context.Context, slots []*slot) {
	there := func() (gone bool, err error) {
		err = a.pool.QueryRow(ctx, "select not exists (select from audits)").Scan(&gone)
		return gone, err
	}
	a.transact(ctx, writeTruncate, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "truncate audits")
		return err
	}, there, func(sent, acked time.Time) {
		for _, h := range a.ledger.audits {
			if len(h.versions) > 0 && !h.current().gone {
				(&slot{h: h}).bury(sent, acked)
			}
		}
	})
}

// finish brings all audits to their end: completed or failed, or here and there deleted. Nothing is broken any more, so
// each write succeeds.
func (a *application) finish(ctx context.Context) {
	for _, s := range a.slots {
		// A successor of what was deleted, its completion.
		for range 2 {
			if s.gone() && s.n%3 == 0 || !s.gone() && !s.running() {
				break
			}
			a.write(ctx, plannedWrite{kind: writeComplete, slots: []int{s.n}, seed: uint64(s.n)})
		}
		if s.running() {
			a.fail("the audit of slot %d could not be completed", s.n)
		}
	}
}
