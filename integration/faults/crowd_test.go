package faults

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

func TestFaultHundredViewersOnTwoInstancesSeeTheEnd(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultHundredViewersOnTwoInstancesSeeTheEnd)
}

func testFaultHundredViewersOnTwoInstancesSeeTheEnd(t *testing.T) {
	db := harness.NewDatabase(t)
	instances := []*harness.Instance{
		harness.Serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"),
		harness.Serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"),
	}
	ids := db.InsertMany(t, 10)
	var viewers []*harness.Viewer
	for _, i := range instances {
		i.WaitReady(t, "up")
		viewers = append(viewers, i.Crowd(t, 100, ids, nil)...)
	}
	app := pgtest.Connect(t, db.Admin)
	for n := range 50 {
		harness.Exec(t, app, `update audits set total_pages = $1, message = 'step ' || id`, n+1)
	}
	harness.Exec(t, app, `update audits set total_pages = 51, status = case when id % 2 = 0 then 'completed' else 'failed' end, error = 'e'`)

	lastIDs := make(map[string]string)
	for _, v := range viewers {
		last := v.Ended(t)
		if *last.TotalPages != 51 || (last.Status != "completed" && last.Status != "failed") {
			t.Errorf("audit %s ended at %s, want a terminal status, state 51", v.ID, harness.Describe(last))
		}
		if id, ok := lastIDs[v.ID]; ok && id != v.LastID {
			t.Errorf("audit %s: ids %s and %s of the same state", v.ID, id, v.LastID)
		}
		lastIDs[v.ID] = v.LastID
	}
	for _, i := range instances {
		i.WantMetric(t, "auditstream_notifications_missed_total", 0)
	}
}

// The safety net is off, so an update lost between the first read and the subscription would never be shown, and the
// stream would not end.
func TestPitfall03UpdateWhileConnectingIsNotLost(t *testing.T) {
	harness.OverHTTP1And2(t, testPitfall03UpdateWhileConnectingIsNotLost)
}

func testPitfall03UpdateWhileConnectingIsNotLost(t *testing.T) {
	const workers, rounds = 4, 250
	db, i := harness.ServeNew(t, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	ids := db.InsertMany(t, workers*rounds)
	token := harness.AliceToken(t)

	var group sync.WaitGroup
	errs := make(chan error, workers*rounds)
	transport := harness.NewTransport()
	transport.MaxIdleConnsPerHost = workers
	defer transport.CloseIdleConnections()
	for w := range workers {
		app := pgtest.Connect(t, db.Admin)
		group.Go(func() {
			for _, id := range ids[w*rounds : (w+1)*rounds] {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.URL+"/api/v1/sse/audits/"+id+"/progress", nil)
				if err != nil {
					errs <- err
					return
				}
				r.Header.Set("Authorization", "Bearer "+token)
				if err := connectDuringUpdates(i, app, transport, r, id); err != nil {
					errs <- fmt.Errorf("audit %s: %w", id, err)
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// connectDuringUpdates commits three states at random moments around the connect. The third is terminal: a stream that
// has seen it ends.
func connectDuringUpdates(i *harness.Instance, app *pgx.Conn, transport *http.Transport, r *http.Request, id string) error {
	ctx, cancel := context.WithTimeout(r.Context(), harness.Patience)
	defer cancel()
	committed := make(chan error, 1)
	go func() {
		for n, status := range []string{"running", "running", "completed"} {
			<-jitter(3 * time.Millisecond)
			if _, err := app.Exec(ctx, "update audits set total_pages = $1, status = $2 where id = $3", n+1, status, id); err != nil {
				committed <- err
				return
			}
		}
		committed <- nil
	}()
	<-jitter(6 * time.Millisecond)
	v, err := i.TryView(transport, r.WithContext(ctx), nil)
	if err != nil {
		return fmt.Errorf("connect: %w", joinCommitted(err, committed))
	}
	<-v.Done
	if err := joinCommitted(v.Err, committed); err != nil {
		return fmt.Errorf("the stream shows %s: %w", harness.Describe(v.Last), err)
	}
	if v.Back != "" || v.Last.Status != "completed" || *v.Last.TotalPages != 3 {
		return fmt.Errorf("the stream ended at %s, went back %q", harness.Describe(v.Last), v.Back)
	}
	return nil
}

func joinCommitted(err error, committed <-chan error) error {
	if commitErr := <-committed; commitErr != nil {
		return commitErr
	}
	return err
}

// One read a tick, however many streams there are, and none when there are none.
func TestFaultSafetyNetIsOneReadATick(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultSafetyNetIsOneReadATick)
}

func testFaultSafetyNetIsOneReadATick(t *testing.T) {
	const reads = `auditstream_read_duration_seconds_count{result="ok"}`
	db, i := harness.ServeNew(t, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	viewers := i.Crowd(t, 300, db.InsertMany(t, 50), nil)
	harness.AllReached(t, viewers, 0)
	// The next read after the last connect is a tick.
	first := i.Metric(t, reads)
	start := i.WaitMetric(t, reads, harness.AtLeast(first+1))
	from := time.Now()
	end := i.WaitMetric(t, reads, harness.AtLeast(start+5))
	ticks := time.Since(from).Seconds()
	// A tick is 0.9 to 1 s.
	if got := end - start; got > ticks/0.9+1 {
		t.Errorf("%v reads in %.1f s with 300 streams of 50 audits and no change, want one a second", got, ticks)
	}
	if ticks > 12 {
		t.Errorf("%v reads took %.1f s, want one a second", end-start, ticks)
	}

	for _, v := range viewers {
		v.Cancel()
	}
	i.WaitMetric(t, "auditstream_watched_audits", harness.AtMost(0))
	none := i.Metric(t, reads)
	<-time.After(3 * time.Second) // three ticks, of which nothing tells
	i.WantMetric(t, reads, none)
}

// A client that was away shows the committed state, whatever happened to the server meanwhile.
func TestFaultKilledServerAndRestartConverge(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultKilledServerAndRestartConverge)
}

func testFaultKilledServerAndRestartConverge(t *testing.T) {
	db := harness.NewDatabase(t)
	id := db.InsertMany(t, 1)[0]
	first := harness.Launch(t, harness.Binary(t), db.Serve, "SSE_RETRY_MS=100")
	client := harness.FollowAlways(t, harness.Request(t, t.Context(), first.URL+"/api/v1/sse/audits/"+id+"/progress", harness.AliceToken(t)))
	client.Reached(t, 0)
	db.SetAll(t, 1)
	client.Reached(t, 1)

	harness.NoError(t, first.Cmd.Process.Kill())
	<-first.Done
	db.SetAll(t, 2)
	_, addr, _ := strings.Cut(first.URL, "//")
	second := harness.Serve(t, db.Serve, "HTTP_ADDR="+addr, "SSE_RETRY_MS=100")
	client.Reached(t, 2)
	second.WaitReady(t, "up")
	db.SetAll(t, 3)
	client.Reached(t, 3)
	if ids := client.LastEventIDs(); !slices.ContainsFunc(ids, func(id string) bool { return id != "" }) {
		t.Error("the client has sent no Last-Event-ID")
	}
	db.SQL(t, `update audits set status = 'completed', total_pages = 4`)
	client.Reached(t, 4)
	// The client comes back once more, with the id of the terminal state, and is told to stop.
	<-client.Done
	if client.Stopped == nil || client.Stopped.StatusCode != http.StatusNoContent {
		t.Errorf("the client stopped with %v, want 204", client.Stopped)
	}
}
