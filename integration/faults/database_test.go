package faults

import (
	"net/http"
	"regexp"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// Open streams outlive the database, whatever happens to it, and show what was committed when it is back.
func TestFaultDatabaseComesAndGoes(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultDatabaseComesAndGoes)
}

func testFaultDatabaseComesAndGoes(t *testing.T) {
	server := pgtest.NewServer(t)
	db := harness.Adopt(t, server.DSN("postgres"))
	i := harness.ServeReady(t, db.Serve, "SSE_HEARTBEAT_SECONDS=1", "SSE_FALLBACK_DB_INTERVAL_SECONDS=60")
	ids := db.InsertMany(t, 4)
	viewers := i.Crowd(t, 20, ids, nil)

	restart := func() error { return server.Restart(t.Context()) }
	n := 0
	for _, fault := range []struct {
		name      string
		down, up  func() error
		committed bool // the change is committed while nobody can see it
	}{
		{"stopped fast", func() error { return server.StopFast(t.Context()) }, restart, false},
		{"stopped immediately", func() error { return server.StopImmediate(t.Context()) }, restart, false},
		{"paused", server.Pause, server.Resume, true},
		{"crashed", func() error { return server.Crash(t.Context()) }, restart, false},
	} {
		n++
		t.Run(fault.name, func(t *testing.T) { // in turn: there is one server
			db.SetAll(t, 10*n)
			harness.AllReached(t, viewers, 10*n)
			harness.NoError(t, fault.down())
			beating := viewers[0].Beating(2)
			whileDatabaseIsDown(t, i, ids[0])
			harness.Eventually(t, beating)
			harness.NoError(t, fault.up())
			up := time.Now()
			db.SetAll(t, 10*n+1)
			harness.AllReached(t, viewers, 10*n+1)
			// The safety net is too far away to help: it is LISTEN, tried every 5 s at most, that reads everything again.
			if took := time.Since(up); took > 10*time.Second {
				t.Errorf("the committed state was shown %v after the database was back", took)
			}
			i.WaitReady(t, "up")
			shownPromptly(t, &db, 10*n+2, viewers...)
		})
	}
	for _, v := range viewers {
		if !v.IsOpen() {
			t.Errorf("the stream of audit %s was closed: %q", v.ID, v.End())
		}
	}
}

var unavailable = regexp.MustCompile(`^retry: [1-9]\d*\nevent: message\ndata: {"error":"Internal server error"}\n\n$`)

// whileDatabaseIsDown checks what requests are told meanwhile.
func whileDatabaseIsDown(t testing.TB, i *harness.Instance, id string) {
	t.Helper()
	// Both at once: each waits a while for the database.
	poll := harness.Request(t, t.Context(), i.URL+"/api/v1/audits/"+id+"/status", harness.AliceToken(t))
	polled := make(chan *http.Response, 1)
	go func() {
		defer close(polled)
		if resp, err := http.DefaultClient.Do(poll); err == nil {
			polled <- resp
		}
	}()
	s := i.Shown(t, id, harness.AliceToken(t))
	s.Ended(t)
	if got := s.Raw.String(); !unavailable.MatchString(got) {
		t.Errorf("a new stream was told %q", got)
	}
	i.Ask(t, "GET", harness.StatusPath(id)).WantStatus(t, 401) // what is known without the database is said
	i.AskAs(t, harness.AliceToken(t), harness.StatusPath("x")).WantStatus(t, 400)
	resp, ok := <-polled
	if !ok {
		t.Fatal("no answer to a status request")
	}
	const unread = `{"error":"Internal server error"}`
	if body := harness.ReadAll(t, resp.Body); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || body != unread {
		t.Errorf("status: %d %s, Retry-After %q, want 503 %s with Retry-After", resp.StatusCode, body, resp.Header.Get("Retry-After"), unread)
	}
	i.WaitStatus(t, "", "/readyz", 503)
	i.Ask(t, "GET", "/healthz").WantStatus(t, 200) // the process lives
}

// The database's machine is gone from the network: nothing is refused, nothing is answered.
func TestFaultBlackHoledPool(t *testing.T) { harness.OverHTTP1And2(t, testFaultBlackHoledPool) }

func testFaultBlackHoledPool(t *testing.T) {
	for _, c := range []struct {
		name string
		both bool
	}{{"pool alone", false}, {"pool and listener", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := harness.NewDatabase(t)
			pool, poolURL := pgtest.ProxyDSN(t, db.Serve)
			listen, listenURL := pgtest.ProxyDSN(t, db.Serve)
			i := harness.ServeReady(t, poolURL, "DATABASE_LISTEN_URL="+listenURL, "SSE_HEARTBEAT_SECONDS=1", "SSE_FALLBACK_DB_INTERVAL_SECONDS=60")
			ids := db.InsertMany(t, 3)
			viewers := i.Crowd(t, 12, ids, nil)
			db.SetAll(t, 1)
			harness.AllReached(t, viewers, 1)
			goroutines := i.Metric(t, "go_goroutines")

			pool.Pause()
			if c.both {
				listen.Pause()
			}
			db.SetAll(t, 2)
			whileDatabaseIsDown(t, i, ids[0])
			i.WaitMetric(t, `auditstream_read_duration_seconds_count{result="error"}`, harness.AtLeast(1))
			for _, v := range viewers {
				if !v.IsOpen() {
					t.Fatalf("the stream of audit %s was closed: %q", v.ID, v.End())
				}
			}
			if got := i.Metric(t, "go_goroutines"); got > goroutines+40 {
				t.Errorf("%v goroutines while nothing can be read, %v before", got, goroutines)
			}

			pool.Resume()
			listen.Resume()
			start := time.Now()
			harness.AllReached(t, viewers, 2)
			if took := time.Since(start); took > harness.WithinNet {
				t.Errorf("the committed state was shown %v after the database was back", took)
			}
			i.WaitReady(t, "up")
			db.SetAll(t, 3)
			harness.AllReached(t, viewers, 3)
			i.WaitMetric(t, "go_goroutines", harness.AtMost(goroutines+4))
		})
	}
}
