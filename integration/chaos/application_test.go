package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// slot is a place on a dashboard: one audit at a time, and its successor when it has ended. Whoever writes to its audit
// holds the lock, so that each audit has one order of versions.
type slot struct {
	n     int
	mu    sync.Mutex
	audit atomic.Int64 // the one shown now; 0: none yet
	h     *history
}

// quiet slots have clients that stay where they are. Each new stream reads its audit for everybody who watches it, so
// restless clients hide that a change was missed.
func (s *slot) quiet() bool { return s.n >= chaosSlots/2 }

// application is the writers. It knows nothing of auditstream, and must never notice that it is there.
type application struct {
	pool    *pgxpool.Pool
	ledger  *ledger
	journal *journal
	slots   []*slot

	mu       sync.Mutex
	updates  []timed // single updates, from the request to the answer of their COMMIT
	failures []string
	excused  int // writes that failed because PostgreSQL was down
}

// timed is how long a write took.
type timed struct {
	at   time.Time
	took time.Duration
}

// run does what is planned, each thing at its time, and waits for all of it.
func (a *application) run(ctx context.Context, writes []plannedWrite) {
	start := time.Now()
	var writing sync.WaitGroup
	inFlight := make(chan struct{}, 200) // while PostgreSQL stands still, writes pile up
	for _, w := range writes {
		if !pause(ctx, time.Until(start.Add(w.at))) {
			break
		}
		select {
		case inFlight <- struct{}{}:
		case <-ctx.Done():
		}
		writing.Go(func() {
			a.write(ctx, w)
			<-inFlight
		})
	}
	writing.Wait()
}

// write does one thing, if the audits that it finds allow it.
func (a *application) write(ctx context.Context, w plannedWrite) {
	var slots []*slot
	for _, n := range w.slots {
		s := a.slots[n]
		if w.kind != writeBulk {
			s.mu.Lock()
		} else if !s.mu.TryLock() {
			continue // waiting for a long transaction with other locks in hand would make everybody wait
		}
		defer s.mu.Unlock()
		slots = append(slots, s)
	}
	if ctx.Err() != nil {
		return
	}
	r := rand.New(rand.NewPCG(w.seed, 0))
	switch w.kind {
	case writeTruncate:
		a.truncate(ctx, slots)
		return
	case writeBulk:
		var running []*slot
		for _, s := range slots {
			if s.running() {
				running = append(running, s)
			}
		}
		slots = running
	default:
		if s := slots[0]; !s.running() && (w.kind != writeDelete || s.gone()) {
			a.succeed(ctx, s, r)
			return
		}
	}
	if len(slots) == 0 {
		return
	}
	if w.kind == writeDelete {
		a.remove(ctx, slots[0])
		return
	}
	a.update(ctx, w, slots, r)
}

func (s *slot) gone() bool { return s.h == nil || s.h.current().gone }

func (s *slot) running() bool { return !s.gone() && !s.h.current().row.terminal() }

// next makes a version with a number of its own.
func (s *slot) next(r row) version {
	s.h.last++
	r.message = numbered(r.message, s.h.last)
	return version{n: s.h.last, row: r}
}

// numbered puts the version's number where the message has a question mark: at its beginning.
func numbered(message string, n int) string {
	return strings.Replace(message, "?", fmt.Sprintf("v%d", n), 1)
}

// change makes up the row that follows.
func change(kind writeKind, now row, r *rand.Rand) row {
	next := now
	next.status = "running"
	next.progress = min(now.progress+r.IntN(3), 99)
	next.message = "? Analyzing <pages> & \"links\"\n" + []string{"é", "", "漢字"}[r.IntN(3)]
	if r.IntN(20) == 0 {
		next.message += strings.Repeat("x", 2000)
	}
	if r.IntN(4) == 0 {
		next.pages = new(r.IntN(1000))
	}
	switch kind {
	case writeOwner:
		next.owner = map[string]string{"alice": "bob", "bob": "alice"}[now.owner]
	case writeComplete:
		next.status = "completed"
		next.progress = 100
		next.geoScore = new(float64(r.IntN(200)) / 2)
		if r.IntN(3) == 0 {
			next.status, next.err = "failed", new("The site \"x\" did not answer")
		}
	}
	return next
}

// fail notes what the application should not have seen.
func (a *application) fail(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, clock(time.Now())+" "+fmt.Sprintf(format, args...))
}

// excuse reports whether an error of a write that began at a time is PostgreSQL's: it was down, and the connection says
// so. It counts it, or else notes a failure.
func (a *application) excuse(kind writeKind, began time.Time, err error) {
	if disconnected(err) && a.journal.outage(began, time.Now()) {
		a.mu.Lock()
		a.excused++
		a.mu.Unlock()
		return
	}
	a.fail("%s: %v", kind, err)
}

// disconnected reports whether an error is about the connection, not about the statement.
func disconnected(err error) bool {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(pgErr.Code, "57P") // shut down, crashed, starting up
	}
	_, network := errors.AsType[net.Error](err)
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	return network || connecting || pgconn.SafeToRetry(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "conn closed")
}

// pause waits without the test's holding anything up; false: ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
