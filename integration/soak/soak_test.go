package soak

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// The short form, which go test runs and make test leaves out: it is here so that the long one works when it is wanted.
	shortSoak = 15 * time.Second
	// firstRound lets the server make what it makes once, before it is measured at rest.
	firstRound = 3 * time.Second
	// poolSize is how many connections the server's pool has.
	poolSize = 4
	// allConnections are the pool's, the one that listens, and the one that holds the locks.
	allConnections = poolSize + 2
)

// TestSoak keeps viewers coming and going while audits are made, change, end and are deleted and connections are cut,
// and measures the server meanwhile. Nothing may grow, nothing may be left when the load is over, and every viewer that
// stays must have seen the end of its audit.
//
// SOAK=20m makes it last; SOAK_REPORT=directory keeps the samples, the drawing and the table.
func TestSoak(t *testing.T) {
	t.Parallel()
	duration := soakDuration(t)
	s := newSoak(t)
	ready := func() { s.server.WaitReady(t, "up") }
	ready()
	s.round(t, firstRound, nil)
	ready()
	before := s.rest(t, nil)
	recorder := newRecorder(duration, before)
	s.round(t, duration, recorder)
	ready()
	after := s.rest(t, &before)
	recorder.finish(after)

	record := recorder.record(duration)
	s.report(t, record)
	s.checkLoad(t)
	rising, enough := record.Rising()
	for _, text := range rising {
		t.Error(text)
	}
	if !enough {
		t.Logf("%v is too short to tell a trend from noise: it was not judged; make soak does", duration)
	}
	if grown := after.heapLive - before.heapLive; grown > heapAllowance {
		t.Errorf("at rest the heap held %.2f MiB more after the load than before it, %.2f are allowed: something is kept",
			grown/mebi, heapAllowance/mebi)
	}
}

func soakDuration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return shortSoak
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration < shortSoak {
		t.Fatalf("SOAK=%q: a duration of %v at least, such as 20m, is allowed", text, shortSoak)
	}
	return duration
}

// soak is a server under load, and what is found wrong with it.
type soak struct {
	database harness.Database
	server   *harness.Instance
	pool     *pgtest.TCPProxy // between the server and its ordinary connections
	tunnel   *pgtest.TCPProxy // between the server and the viewers that vanish
	writers  *pgxpool.Pool    // the application's
	sampler  *sampler
	slots    []*slotOfAudits
	heavy    heavyAudit

	mu       sync.Mutex
	problems []string
	counts   map[string]int // what happened, by name
	late     []time.Duration
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	// Its own server with PostgreSQL's own settings, fsync among them: the NOTIFY queue and the memory are nobody else's.
	db := harness.Adopt(t, pgtest.NewServer(t).DSN("postgres"))
	s := &soak{database: db, counts: make(map[string]int)}
	poolURL := ""
	s.pool, poolURL = pgtest.ProxyDSN(t, db.Serve)
	// A stream's longest life exceeds our patience: a viewer that has missed the end is not saved by reconnecting.
	s.server = harness.Launch(t, harness.PlainBinary(t), fmt.Sprintf("%s&pool_max_conns=%d&pool_min_conns=%[2]d&pool_health_check_period=1s", poolURL, poolSize),
		"DATABASE_LISTEN_URL="+db.Serve, "SSE_MAX_DURATION=60", "SSE_HEARTBEAT_SECONDS=1", "SSE_RETRY_MS=1000",
		// Full before the first look at rest: thousands of remembered tokens are no leak, but would hide one.
		"JWT_CACHED_TOKENS=16")
	s.server.Log.KeepLast(256 << 10)
	s.tunnel = pgtest.Proxy(t, strings.TrimPrefix(s.server.URL, "http://"))
	var err error
	if s.writers, err = pgxpool.New(t.Context(), db.Admin+"&pool_max_conns=8"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.writers.Close)
	s.sampler = &sampler{server: s.server, admin: pgtest.Connect(t, db.Admin)}
	for n := range soakSlots {
		s.slots = append(s.slots, &slotOfAudits{soak: s, n: n})
	}
	s.heavy.soak = s
	return s
}

// round puts the server under load for a time: first the visitors and the faults end, then the audits, so that the end
// of each is seen by those who watch it.
func (s *soak) round(t *testing.T, d time.Duration, r *recorder) {
	t.Helper()
	visiting, stopVisits := context.WithCancel(t.Context())
	defer stopVisits()
	writing, stopWrites := context.WithCancel(t.Context())
	defer stopWrites()
	var visits, writes sync.WaitGroup
	for _, slot := range s.slots {
		writes.Go(func() { slot.run(t, writing.Done()) })
	}
	writes.Go(func() { s.heavy.run(t, writing.Done()) })
	writes.Go(func() { s.writeInBulk(t.Context(), writing.Done()) })
	writes.Go(func() { s.rollBack(t.Context(), writing.Done()) })
	a := &audience{soak: s}
	for range soakVisitors {
		visits.Go(func() { a.visit(visiting, t) })
	}
	visits.Go(func() { a.vanish(visiting, t) })
	visits.Go(func() { s.breakConnections(visiting, faultEvery(d)) })

	end := time.After(d)
	var tick <-chan time.Time
	if r != nil {
		ticker := time.NewTicker(r.every)
		defer ticker.Stop()
		tick = ticker.C
		r.start(s.sample(t))
	}
	for open := true; open; {
		select {
		case <-tick:
			r.add(s.sample(t))
		case <-end:
			open = false
		}
	}
	stopVisits()
	visits.Wait()
	stopWrites()
	writes.Wait()
}

// faultEvery is the time between two faults.
func faultEvery(d time.Duration) time.Duration { return min(max(d/8, time.Second), 15*time.Second) }

func (s *soak) sample(t *testing.T) sampled {
	t.Helper()
	got, err := s.sampler.take(t.Context())
	harness.NoError(t, err)
	s.mu.Lock()
	got.visits = float64(s.counts[visitCount])
	s.mu.Unlock()
	return got
}

// rest waits until nothing of the load is left in the server, and measures it. Compared with an earlier rest, it must
// have no more goroutines and descriptors, apart from the pool's connections, which come and go within their bound.
func (s *soak) rest(t *testing.T, earlier *sampled) sampled {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(harness.Patience); ; <-tick.C {
		s.server.CollectGarbage(t)
		now := s.sample(t)
		left := now.leftOf(earlier)
		if left == "" {
			now.heapLive = s.leastLive(t)
			return now
		}
		if time.Now().After(deadline) {
			t.Errorf("%v after the load there are %s", harness.Patience, left)
			return now // the report shows since when
		}
	}
}

// leastLive is what collections find in use when little is asked of the server. The profile by which collections are asked
// for causes more of them while it is encoded, which count that answer, MiBs in a server that has run for long; those that
// scrapes cause count hardly anything.
func (s *soak) leastLive(t *testing.T) float64 {
	t.Helper()
	least := math.Inf(1)
	for range 100 {
		least = min(least, s.sample(t).heapLive)
	}
	return least
}

// leftOf says what a server at rest should not have.
func (now sampled) leftOf(earlier *sampled) string {
	switch {
	case now.streams != 0 || now.watched != 0:
		return fmt.Sprintf("%v open streams and %v watched audits, want none", now.streams, now.watched)
	case now.connections != allConnections: // each keeps some memory, so all of them are there whenever it is compared
		return fmt.Sprintf("%v connections to the database, want %d", now.connections, allConnections)
	case earlier == nil:
		return ""
	case now.goroutines > earlier.goroutines:
		return fmt.Sprintf("%v goroutines, %v before it", now.goroutines, earlier.goroutines)
	case now.files-now.connections > earlier.files-earlier.connections:
		return fmt.Sprintf("%v file descriptors besides %v connections to the database, %v besides %v before it",
			now.files, now.connections, earlier.files, earlier.connections)
	}
	return ""
}

// checkLoad fails the test where what was meant to happen did not, or went wrong.
func (s *soak) checkLoad(t *testing.T) {
	t.Helper()
	for _, problem := range s.problems {
		t.Error(problem)
	}
	for _, name := range append(visitNames(), auditEnds...) {
		if s.counts[name] == 0 {
			t.Errorf("%s: did not happen", name)
		}
	}
	for _, name := range []string{faultListener, faultPool, faultNetwork} {
		if s.counts[name] == 0 {
			t.Errorf("%s: did not happen", name)
		}
	}
	for _, reason := range []string{"terminal", "client gone", "token expired", "deleted"} {
		if s.server.Metric(t, `auditstream_streams_ended_total{reason="`+reason+`"}`) == 0 {
			t.Errorf("no stream ended because of: %s", reason)
		}
	}
}

// count notes that something happened.
func (s *soak) count(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[name]++
}

// problem notes that something went wrong. The first ones tell the story.
func (s *soak) problem(format string, args ...any) {
	const enough = 20
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < enough {
		s.problems = append(s.problems, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// sleep waits, shorter when done is closed: false.
func sleep(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

var unknown = math.NaN()
