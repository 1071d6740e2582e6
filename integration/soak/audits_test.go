package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

const (
	soakSlots = 10
	// uncommitted is written by transactions that are rolled back: nobody may ever see it.
	uncommitted = "never committed"

	endCompleted  = "audits completed"
	endFailed     = "audits failed"
	endDeletedRow = "audits deleted while they ran"
)

var auditEnds = []string{endCompleted, endFailed, endDeletedRow}

// liveAudit is an audit that exists, or did a moment ago. Each has a user of its own: a server that keeps something of
// each user is found out too.
type liveAudit struct{ id, user string }

// slotOfAudits makes one audit after the other, each watched from its first moment by a viewer that must see its end.
type slotOfAudits struct {
	*soak
	n       int // changes with each audit: one after the other, they end in each way
	current atomic.Pointer[liveAudit]
}

var userNumber atomic.Int64

func (s *soak) insertAudit(ctx context.Context) (liveAudit, error) {
	a := liveAudit{user: fmt.Sprintf("user-%d", userNumber.Add(1))}
	err := s.writers.QueryRow(ctx, `insert into audits (url, user_id, status, total_pages)
		values ('https://example.com', $1, 'running', 0) returning id::text`, a.user).Scan(&a.id)
	return a, err
}

// run goes on until done; then the current audit comes to its end first. It does not stop in the middle.
func (s *slotOfAudits) run(t *testing.T, done <-chan struct{}) {
	for ; ; s.n++ {
		if err := s.life(t, done); err != nil {
			s.problem("the application was disturbed: %v", err)
			return
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func (s *slotOfAudits) life(t *testing.T, done <-chan struct{}) error {
	ctx := t.Context()
	audit, err := s.insertAudit(ctx)
	if err != nil {
		return err
	}
	s.current.Store(&audit)
	watcher := make(chan lastSeen, 1)
	watching, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() { watcher <- s.watchToTheEnd(watching, t, audit) }()

	for steps := 5 + rand.IntN(15); steps > 0 && sleep(done, rand.N(400*time.Millisecond)); steps-- {
		_, err := s.writers.Exec(ctx, `update audits set total_pages = total_pages + 1, progress = least(progress + 5, 99),
			message = 'step ' || total_pages where id = $1::bigint`, audit.id)
		if err != nil {
			return err
		}
	}
	want, end, err := s.end(ctx, audit)
	if err != nil {
		return err
	}
	committed := time.Now()
	select {
	case got := <-watcher:
		if got.what != want {
			s.problem("audit %s ended as %s, but its viewer ended with %s", audit.id, want, got.what)
		}
		late := max(0, got.at.Sub(committed))
		if late > harness.WithinNet {
			s.problem("audit %s ended as %s, which its viewer saw %v later", audit.id, want, late)
		}
		s.mu.Lock()
		s.late = append(s.late, late)
		s.mu.Unlock()
		s.count(end)
	case <-time.After(harness.Patience):
		giveUp()
		s.problem("audit %s ended as %s, and %v later its viewer has seen %s", audit.id, want, harness.Patience, (<-watcher).what)
	}
	// Latecomers find an audit that has ended, and later none.
	sleep(done, rand.N(time.Second))
	_, err = s.writers.Exec(ctx, `delete from audits where id = $1::bigint`, audit.id)
	return err
}

// end commits the end of an audit, and says what its viewers must have seen last.
func (s *slotOfAudits) end(ctx context.Context, audit liveAudit) (want, end string, err error) {
	var pages int
	switch s.n % 4 {
	case 0:
		_, err = s.writers.Exec(ctx, `delete from audits where id = $1::bigint`, audit.id)
		return "Audit not found", endDeletedRow, err
	case 1:
		err = s.writers.QueryRow(ctx, `update audits set status = 'failed', error = 'out of luck', total_pages = total_pages + 1
			where id = $1::bigint returning total_pages`, audit.id).Scan(&pages)
		return "failed, state " + strconv.Itoa(pages), endFailed, err
	}
	err = s.writers.QueryRow(ctx, `update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5,
		total_pages = total_pages + 1 where id = $1::bigint returning total_pages`, audit.id).Scan(&pages)
	return "completed, state " + strconv.Itoa(pages), endCompleted, err
}

// lastSeen is what a viewer ended with, and when that came.
type lastSeen struct {
	what string
	at   time.Time
}

// watchToTheEnd follows an audit across reconnects until its last event.
func (s *soak) watchToTheEnd(ctx context.Context, t *testing.T, audit liveAudit) lastSeen {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	bearer := harness.Token(t, jwt.MapClaims{"sub": audit.user})
	state, last := -1, lastSeen{what: "nothing"}
	seen := func(p harness.Progress, at time.Time) {
		if p.Message != nil && *p.Message == uncommitted {
			s.problem("audit %s: a state that was rolled back was shown", audit.id)
		}
		switch {
		case p.AuditID == 0 && p.Error != nil:
			last = lastSeen{*p.Error, at}
		case p.TotalPages != nil:
			if *p.TotalPages < state {
				s.problem("audit %s went back from state %d to %d", audit.id, state, *p.TotalPages)
			}
			state, last = *p.TotalPages, lastSeen{fmt.Sprintf("%s, state %d", p.Status, *p.TotalPages), at}
		}
	}
	for ctx.Err() == nil {
		v, err := s.server.TryView(transport, harness.Request(t, ctx, s.server.URL+"/api/v1/sse/audits/"+audit.id+"/progress", bearer), seen)
		if err != nil {
			if ctx.Err() == nil { // 404: it was deleted while this viewer was away
				last = lastSeen{"Audit not found", time.Now()}
				if text := err.Error(); text != `status 404: {"error":"Audit not found"}` {
					last.what = text
				}
			}
			return last
		}
		<-v.Done
		v.Mu.Lock()
		p := v.Last
		v.Mu.Unlock()
		if p.Status == "completed" || p.Status == "failed" || last.what == "Audit not found" {
			return last
		}
		sleep(ctx.Done(), rand.N(200*time.Millisecond))
	}
	return last
}

// writeInBulk changes all running audits in one statement, again and again.
func (s *soak) writeInBulk(ctx context.Context, done <-chan struct{}) {
	for sleep(done, time.Second+rand.N(time.Second)) {
		_, err := s.writers.Exec(ctx, `update audits set total_pages = total_pages + 1, message = 'in bulk' where status = 'running'`)
		if err != nil {
			s.problem("the application was disturbed: %v", err)
			return
		}
	}
}

// rollBack changes an audit and takes the change back, again and again.
func (s *soak) rollBack(ctx context.Context, done <-chan struct{}) {
	for n := 0; sleep(done, rand.N(500*time.Millisecond)); n++ {
		audit := s.slots[n%len(s.slots)].current.Load()
		if audit == nil {
			continue
		}
		err := func() error {
			tx, err := s.writers.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(ctx) }() // meant to
			_, err = tx.Exec(ctx, `update audits set message = $1, total_pages = total_pages + 1000 where id = $2::bigint`, uncommitted, audit.id)
			return err
		}()
		if err != nil {
			s.problem("the application was disturbed: %v", err)
			return
		}
	}
}

// heavyAudit is one audit with long texts that changes all the time: it fills the buffers of those who do not read. It
// lives as long as a round.
type heavyAudit struct {
	*soak
	current atomic.Pointer[liveAudit]
}

func (h *heavyAudit) run(t *testing.T, done <-chan struct{}) {
	const length = 64 << 10
	err := func() error {
		audit, err := h.insertAudit(t.Context())
		if err != nil {
			return err
		}
		h.current.Store(&audit)
		for sleep(done, 100*time.Millisecond) {
			_, err := h.writers.Exec(t.Context(), `update audits set total_pages = total_pages + 1, message = repeat('x', $1) where id = $2::bigint`, length, audit.id)
			if err != nil {
				return err
			}
		}
		_, err = h.writers.Exec(t.Context(), `delete from audits where id = $1::bigint`, audit.id)
		return err
	}()
	if err != nil {
		h.problem("the application was disturbed: %v", err)
	}
}
