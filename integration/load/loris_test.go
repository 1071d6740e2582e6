package load

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// Clients that never finish a request are cut off, and keep nobody out meanwhile, however many there are.
func TestLoadSlowRequestsAreCutOffAndKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const each = 200
	db, i := harness.ServeNew(t)
	id := db.InsertMany(t, 1)[0]
	v := i.View(t, id, nil)
	v.Reached(t, 0)
	goroutines := i.Metric(t, "go_goroutines")
	quiet := harness.Serve(t, db.Serve) // has no slow clients

	kinds := []struct {
		name, begin, drop string
		limit             time.Duration // of the server
	}{
		{"says nothing", "", "", 5 * time.Second},
		{"header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "x", 5 * time.Second},
		{"header of the second request", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nX-Slow: ", "x", 5 * time.Second},
		{"body", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", "x", 10 * time.Second},
		{"body of a stream's request", "GET " + harness.StreamPath(id) + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", "x", 10 * time.Second},
	}
	begun := time.Now()
	clients := make(map[string][]func(testing.TB, string) (time.Duration, string))
	for _, kind := range kinds {
		for range each {
			clients[kind.name] = append(clients[kind.name], harness.Trickle(t, i.URL, kind.begin, kind.drop))
		}
	}
	connected := time.Since(begun)
	without, with := askTimes(t, 20, quiet, i)
	n := 0
	for time.Since(begun) < 4*time.Second { // all are there
		n++
		db.SetAll(t, n)
		v.Reached(t, n)
		s := i.Shown(t, id, harness.AliceToken(t))
		s.Cancel()
	}
	for _, kind := range kinds {
		var slowest time.Duration
		for _, closed := range clients[kind.name] {
			took, _ := closed(t, kind.name)
			slowest = max(slowest, took)
		}
		t.Logf("%s: cut off after %v at most", kind.name, slowest.Round(time.Millisecond))
		if slowest > kind.limit+5*time.Second {
			t.Errorf("%s: cut off after %v, want %v and a little", kind.name, slowest, kind.limit)
		}
	}
	t.Logf("%d slow clients connected within %v; a request takes %v without them, %v with them", each*len(kinds), connected.Round(time.Millisecond), without, with)
	if with > 3*without+20*time.Millisecond {
		t.Errorf("a request takes %v without slow clients, %v with them", without, with)
	}
	if !v.IsOpen() {
		t.Error("another's stream has ended")
	}
	i.WaitMetric(t, "go_goroutines", harness.AtMost(goroutines+5))
}

// askTimes is the median time of n requests, each on a connection of its own, to one instance and another in turn.
func askTimes(t testing.TB, n int, one, other *harness.Instance) (ofOne, ofOther time.Duration) {
	t.Helper()
	took := make(map[*harness.Instance][]time.Duration)
	for range n {
		for _, i := range []*harness.Instance{one, other} {
			start := time.Now()
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(harness.Request(t, t.Context(), i.URL+"/healthz", ""))
			harness.NoError(t, err)
			harness.ReadAll(t, resp.Body)
			took[i] = append(took[i], time.Since(start))
		}
	}
	slices.Sort(took[one])
	slices.Sort(took[other])
	return took[one][n/2], took[other][n/2]
}
