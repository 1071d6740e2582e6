package faults

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/tmaxmax/go-sse"
)

func TestFaultTenThousandUpdatesInOneTransactionAreFewEvents(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultTenThousandUpdatesInOneTransactionAreFewEvents)
}

func testFaultTenThousandUpdatesInOneTransactionAreFewEvents(t *testing.T) {
	db, i := harness.ServeNew(t)
	id := db.InsertMany(t, 1)[0]
	v := i.View(t, id, nil)
	v.Reached(t, 0)

	db.SQL(t, `do $$ begin for n in 1..10000 loop update audits set total_pages = n; end loop; end $$`)
	v.Reached(t, 10000)
	if events, _ := v.Counts(); events != 2 {
		t.Errorf("%d events, want 2: the state before the transaction and the one after it", events)
	}
}

// A reader that cannot keep up must neither hold up the others nor miss the end.
func TestFaultSlowReaderSkipsStatesButNotTheLast(t *testing.T) {
	t.Parallel()
	const updates = 2000
	db, i := harness.ServeNew(t, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	id := db.InsertMany(t, 1)[0]
	others := i.Crowd(t, 2, []string{id}, nil)
	slow := i.RawClient(t, id, "")

	written := make(chan struct{})
	result := make(chan slowResult, 1)
	go func() { result <- readSlowly(slow, written) }()

	app := pgtest.Connect(t, db.Admin)
	for n := 1; n < updates; n++ {
		harness.Exec(t, app, `update audits set total_pages = $1, progress = $2, message = $3`, n, n%100, strings.Repeat(fmt.Sprintf("%05d", n), 4000))
	}
	harness.Exec(t, app, `update audits set status = 'completed', progress = 100, message = null, total_pages = $1`, updates)
	for _, v := range others {
		v.Reached(t, updates)
		if last := v.Ended(t); last.Status != "completed" {
			t.Errorf("another viewer's last state: %s, want completed", harness.Describe(last))
		}
	}

	close(written) // now it reads as fast as it can
	got := <-result
	if got.err != nil {
		t.Fatal(got.err)
	}
	if got.last.Status != "completed" || *got.last.TotalPages != updates {
		t.Errorf("the slow reader's last state: %s, want completed, state %d", harness.Describe(got.last), updates)
	}
	if got.back {
		t.Error("the slow reader's stream went back")
	}
	if got.events >= updates {
		t.Errorf("the slow reader got %d events: it was not slow", got.events)
	}
	if coalesced := i.Metric(t, "auditstream_states_coalesced_total"); coalesced == 0 {
		t.Error("no state was coalesced: the slow reader was not slow")
	}
	t.Logf("%d updates: %d events to the slow reader", updates, got.events)
}

type slowResult struct {
	last   harness.Progress
	events int
	back   bool
	err    error
}

// readSlowly reads a stream 4 kB at a time, 64 kB a second, until hurry is closed. An event of 20 kB then takes twice the 150 ms
// between two reads of an audit that changes all the time, however busy the machine is.
func readSlowly(conn net.Conn, hurry <-chan struct{}) (r slowResult) {
	tick := time.NewTicker(62 * time.Millisecond)
	defer tick.Stop()
	reader := harness.ReaderFunc(func(p []byte) (int, error) {
		select {
		case <-tick.C:
			return conn.Read(p[:min(len(p), 4096)])
		case <-hurry:
			return conn.Read(p)
		}
	})
	r.err = readRaw(reader, func(event sse.Event, p harness.Progress) {
		r.events++
		r.back = r.back || (r.last.TotalPages != nil && *p.TotalPages < *r.last.TotalPages)
		r.last = p
	})
	return r
}

func TestFaultRollbackShowsNothing(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultRollbackShowsNothing)
}

func testFaultRollbackShowsNothing(t *testing.T) {
	db, i := harness.ServeNew(t)
	id := db.InsertMany(t, 1)[0]
	s := i.Shown(t, id, harness.AliceToken(t))

	db.SQL(t, `begin; update audits set total_pages = 1, status = 'completed'; rollback`)
	db.SQL(t, `begin;
		update audits set total_pages = 2;
		savepoint s; update audits set total_pages = 3, status = 'failed'; rollback to s;
		commit`)
	if got := s.NextProgress(t); *got.TotalPages != 2 || got.Status != "running" {
		t.Errorf("event after a rollback and a rollback to a savepoint: %s, want state 2, running", harness.Describe(got))
	}
	// Nothing committed at all: what comes next is the next commit.
	db.SQL(t, `begin; savepoint s; update audits set total_pages = 4; rollback to s; commit`)
	db.SQL(t, `update audits set total_pages = 5`)
	s.WantState(t, 5)
	i.WantMetric(t, "auditstream_notifications_missed_total", 0)
}

// A trigger knows no column, so that a change of one that nobody is shown rings; nobody is shown anything because of it.
func TestPitfall01UpdateOfNothingShownSendsNothing(t *testing.T) {
	t.Parallel()
	db, i := harness.ServeNew(t)
	id := db.InsertMany(t, 1)[0]
	s := i.Shown(t, id, harness.AliceToken(t))
	db.WatchedBy(t, id, 1)
	before := i.Metric(t, `auditstream_notifications_total{kind="row"}`) // nobody watched the insert

	db.SQL(t, `update audits set updated_at = now(), url = 'https://example.org'`)
	db.SQL(t, `update audits set total_pages = total_pages, message = message, status = status`)
	i.WaitMetric(t, `auditstream_notifications_total{kind="row"}`, func(n float64) bool { return n == before+2 })
	db.SQL(t, `update audits set error = 'not shown while the audit runs', total_pages = 1`)
	s.WantState(t, 1)
	db.SQL(t, `begin; update audits set progress = 99; update audits set progress = 0; commit`) // there and back
	db.Insert(t, "status, progress", "'running', 99")                                           // another's
	db.SQL(t, `update audits set total_pages = 2`)
	s.WantState(t, 2)
}

// A payload of 8,000 bytes would abort the writer's transaction; the sizes of the row's texts must not matter to it.
func TestPitfall02TextsBeyondANotificationsLimitDoNotAbortTheWriter(t *testing.T) {
	harness.OverHTTP1And2(t, testPitfall02TextsBeyondANotificationsLimitDoNotAbortTheWriter)
}

func testPitfall02TextsBeyondANotificationsLimitDoNotAbortTheWriter(t *testing.T) {
	db, i := harness.ServeNew(t)
	id := db.InsertMany(t, 1)[0]
	s := i.Shown(t, id, harness.AliceToken(t))

	app := pgtest.Connect(t, db.Admin)
	for _, size := range []int{7999, 8000, 8001} {
		text := strings.Repeat("😀", 2000)[:size/4*4] + strings.Repeat("x", size%4)
		harness.Exec(t, app, `update audits set message = $1, error = $1, url = $1, user_email = $1`, text)
		if got := s.NextProgress(t); got.Message == nil || *got.Message != text {
			t.Errorf("the message of %d bytes did not arrive whole", size)
		}
	}
	want := strings.Repeat("<ü€😀>\n", 1<<20/len("<ü€😀>\n")) + "end"
	harness.Exec(t, app, `update audits set status = 'failed', error = $1`, want)
	got := s.NextProgress(t)
	if got.Error == nil || *got.Error != want {
		t.Errorf("the error text of %d bytes did not arrive whole", len(want))
	}
	s.Ended(t)
}
