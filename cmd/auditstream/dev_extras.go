package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"auditstream/internal/server/web"

	"golang.org/x/sync/errgroup"
)

const (
	maxExtras    = 6
	keptRecords  = 24
	madeToFail   = "Made to fail by a button of the page."
	extraStopped = "The worker was stopped."
)

// extra is the worker of the audits that a button of the page starts.
var extra = worker{site: "https://yours.example", pages: 96, pace: time.Second}

// start begins an audit that run plays, and returns its id. Safe for concurrent use.
func (s *simulation) start(ctx context.Context) (id int64, err error) {
	s.mu.Lock()
	full := s.runningExtras >= maxExtras
	if !full {
		s.runningExtras++
	}
	s.mu.Unlock()
	if full {
		return 0, web.Refusal(fmt.Sprintf("%d started audits are enough for now: wait until one of them has ended", maxExtras))
	}
	err = s.db.QueryRow(ctx, `
		with deleted as (
			delete from audits where id in (
				select id from audits where user_id = $1 and url = $2 and status in ('completed', 'failed')
				order by id desc offset $3)
		)
		insert into audits (user_id, url, status, message) values ($1, $2, 'pending', 'Waiting for a worker...')
		returning id`, devUser, extra.site, keptAudits).Scan(&id)
	if err != nil {
		s.extraEnded()
		return 0, fmt.Errorf("start an audit: %w", err)
	}
	s.recordBegin(id, extra.site)
	select {
	case s.extras <- id:
		return id, nil
	case <-ctx.Done():
		s.extraEnded()
		return 0, ctx.Err()
	}
}

func (s *simulation) extraEnded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runningExtras--
}

// playExtras plays the audits that start makes, until ctx is done, and returns ctx's error.
func (s *simulation) playExtras(ctx context.Context, group *errgroup.Group) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case id := <-s.extras:
			group.Go(func() error {
				defer s.extraEnded()
				return s.play(ctx, id, extra)
			})
		}
	}
}

// endExtras ends the audits that an earlier run left running.
func (s *simulation) endExtras(ctx context.Context) error {
	_, err := s.db.Exec(ctx, `
		update audits set status = 'failed', error = $3, updated_at = now()
		where user_id = $1 and url = $2 and status not in ('completed', 'failed')`, devUser, extra.site, extraStopped)
	if err != nil {
		return fmt.Errorf("end the audits of an earlier run: %w", err)
	}
	return nil
}

// fail makes a running audit fail. Its worker notices this at its next update.
func (s *simulation) fail(ctx context.Context, id int64) error {
	if id == s.byHand {
		return web.Refusal(fmt.Sprintf("Audit %d is the one to change by hand: choose another one", id))
	}
	tag, err := s.db.Exec(ctx, `
		update audits set status = 'failed', error = $3, updated_at = now()
		where id = $1 and user_id = $2 and status not in ('completed', 'failed')`, id, devUser, madeToFail)
	if err != nil {
		return fmt.Errorf("make an audit fail: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return web.Refusal(fmt.Sprintf("Audit %d is not running: choose another one", id))
	}
	s.recordEnd(id)
	return nil
}

func (s *simulation) recordBegin(id int64, site string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, web.DevAudit{ID: id, Site: site, Started: &now})
	s.records = s.records[max(0, len(s.records)-keptRecords):]
}

// recordEnd records when an audit ended; later calls for the same audit change nothing.
func (s *simulation) recordEnd(id int64) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.records {
		if r.ID == id && r.Ended == nil {
			s.records[i].Ended = &now
		}
	}
}

// recent returns the audit that the developer changes, and the newest of the others. Safe for concurrent use.
func (s *simulation) recent() []web.DevAudit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]web.DevAudit{{ID: s.byHand, Site: byHandURL}}, slices.Clone(s.records)...)
}
