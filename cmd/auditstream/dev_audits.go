package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"auditstream/internal/server/web"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

const (
	byHandURL  = "https://by-hand.example"
	foreignURL = "https://somebody-else.example"
	// keptAudits is how many ended audits of each worker stay in the table.
	keptAudits   = 12
	writeTimeout = 5 * time.Second
	writeRetry   = 500 * time.Millisecond
)

// simulation plays the application whose audits dev shows: workers that write progress into the table and know nothing
// of auditstream. It does not touch rows that it did not make.
type simulation struct {
	db      *pgxpool.Pool
	logger  *slog.Logger
	workers []worker
	// exporters work in the table exports.
	exporters []exporter

	byHand  int64   // the audit that stays running, for the developer to change
	foreign int64   // an audit of another user
	first   []int64 // each worker's first audit

	extras chan int64 // audits started by the page, for run to play; nil: the page cannot start any

	mu            sync.Mutex
	records       []web.DevAudit // the newest audits of this run
	runningExtras int            // audits started by the page that have not ended
}

// worker plays one audit after the other, always of the same site.
type worker struct {
	site  string
	pages int
	pace  time.Duration // between two updates, plus or minus a half
	rest  time.Duration // between two audits
	fails bool
}

var devWorkers = []worker{
	{site: "https://shop.example", pages: 64, pace: 250 * time.Millisecond, rest: 6 * time.Second},
	{site: "https://news.example", pages: 480, pace: 700 * time.Millisecond, rest: 8 * time.Second},
	{site: "https://flaky.example", pages: 120, pace: 900 * time.Millisecond, rest: 10 * time.Second, fails: true},
	{site: "https://archive.example", pages: 2400, pace: 3 * time.Second, rest: 10 * time.Second},
}

// prepare makes the rows that no worker changes, or finds those of the last run, so that their ids stay the same.
func (s *simulation) prepare(ctx context.Context) error {
	var err error
	s.byHand, err = s.ensureAudit(ctx, devUser, byHandURL, "Waiting for your UPDATE")
	if err != nil {
		return err
	}
	s.foreign, err = s.ensureAudit(ctx, "somebody-else", foreignURL, "Not yours to see")
	if err != nil {
		return err
	}
	s.first = make([]int64, len(s.workers))
	for i, w := range s.workers {
		if s.first[i], err = s.begin(ctx, w); err != nil {
			return fmt.Errorf("begin an audit: %w", err)
		}
	}
	return s.endExtras(ctx)
}

func (s *simulation) ensureAudit(ctx context.Context, user, url, message string) (id int64, err error) {
	err = s.db.QueryRow(ctx, `
		update audits set status = 'running', progress = 0, message = $3,
		       geo_score = null, total_pages = null, error = null, updated_at = now()
		where id = (select min(id) from audits where user_id = $1 and url = $2)
		returning id`, user, url, message).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = s.db.QueryRow(ctx, `
			insert into audits (user_id, url, status, message) values ($1, $2, 'running', $3) returning id`,
			user, url, message).Scan(&id)
	}
	if err != nil {
		return 0, fmt.Errorf("prepare an audit of %s: %w", user, err)
	}
	return id, nil
}

// run works until ctx is done, and returns nil. prepare must have been called.
func (s *simulation) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for slot := range s.workers {
		group.Go(func() error { return s.work(ctx, slot) })
	}
	for _, e := range s.exporters {
		group.Go(func() error { return s.export(ctx, e) })
	}
	group.Go(func() error { return s.playExtras(ctx, group) })
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// work plays a worker's audits until ctx is done, and returns ctx's error.
func (s *simulation) work(ctx context.Context, slot int) error {
	w, id := s.workers[slot], s.first[slot]
	for {
		if err := s.play(ctx, id, w); err != nil {
			return err
		}
		if err := pause(ctx, w.rest); err != nil {
			return err
		}
		err := s.persist(ctx, func(ctx context.Context) (err error) {
			id, err = s.begin(ctx, w)
			return err
		})
		if err != nil {
			return err
		}
	}
}

// begin makes the worker's next row, ends the rows that a killed run left running, and deletes the oldest.
func (s *simulation) begin(ctx context.Context, w worker) (id int64, err error) {
	err = s.db.QueryRow(ctx, `
		with ended as (
			update audits set status = 'failed', error = 'The worker was stopped.', updated_at = now()
			where user_id = $1 and url = $2 and status not in ('completed', 'failed')
		), deleted as (
			delete from audits where id in (
				select id from audits where user_id = $1 and url = $2 and status in ('completed', 'failed')
				order by id desc offset $3)
		)
		insert into audits (user_id, url, status, message) values ($1, $2, 'pending', 'Waiting for a worker...')
		returning id`, devUser, w.site, keptAudits-1).Scan(&id)
	if err == nil {
		s.recordBegin(id, w.site)
	}
	return id, err
}

// play writes an audit's steps to its end, or until somebody else has ended or deleted the row.
func (s *simulation) play(ctx context.Context, id int64, w worker) error {
	defer s.recordEnd(id)
	for _, step := range w.steps() {
		if err := pause(ctx, w.pace/2+rand.N(w.pace)); err != nil {
			return err
		}
		found := false
		err := s.persist(ctx, func(ctx context.Context) error {
			tag, err := s.db.Exec(ctx, `
				update audits set status = $2, progress = $3, message = $4, total_pages = $5, geo_score = $6, error = $7,
				       updated_at = now()
				where id = $1 and status not in ('completed', 'failed')`,
				id, step.status, step.progress, step.message, step.pages, step.score, step.failure)
			found = tag.RowsAffected() > 0
			return err
		})
		if err != nil {
			return err
		}
		if !found {
			return nil
		}
	}
	return nil
}

// persist repeats a write until it succeeds, because the database may be restarting. The error is ctx's.
func (s *simulation) persist(ctx context.Context, write func(context.Context) error) error {
	for told := false; ; {
		attempt, cancel := context.WithTimeout(ctx, writeTimeout)
		err := write(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !told {
			told = true
			s.logger.Warn("an audit's worker waits for the database", "error", err)
		}
		if err := pause(ctx, writeRetry); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
