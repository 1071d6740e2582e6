package integration

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Clients that never finish a request are cut off, and keep nobody out meanwhile, however many there are.
func TestLoadSlowRequestsAreCutOffAndKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const each = 200
	db := newDatabase(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	id := db.insertMany(t, 1)[0]
	v := i.view(t, id, nil)
	v.reached(t, 0)
	goroutines := i.metric(t, "go_goroutines")
	alone := i.askTimes(t, 20)

	kinds := []struct {
		name, begin, drop string
		limit             time.Duration // of the server
	}{
		{"says nothing", "", "", 5 * time.Second},
		{"header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "x", 5 * time.Second},
		{"header of the second request", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nX-Slow: ", "x", 5 * time.Second},
		{"body", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", "x", 10 * time.Second},
		{"body of a stream's request", "GET " + streamPath(id) + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", "x", 10 * time.Second},
	}
	begun := time.Now()
	clients := make(map[string][]*slowClient)
	for _, kind := range kinds {
		for range each {
			clients[kind.name] = append(clients[kind.name], i.slowClient(t, kind.begin, kind.drop))
		}
	}
	connected := time.Since(begun)
	beside := i.askTimes(t, 20)
	n := 0
	for time.Since(begun) < 4*time.Second { // all are there
		n++
		db.set(t, n)
		v.reached(t, n)
		s := i.watch(t, id, alice(t))
		s.next(t)
		s.cancel()
	}
	for _, kind := range kinds {
		var slowest time.Duration
		for _, c := range clients[kind.name] {
			select {
			case took := <-c.ended:
				slowest = max(slowest, took)
			case <-time.After(patience):
				t.Fatalf("%s: still open", kind.name)
			}
		}
		t.Logf("%s: cut off after %v at most", kind.name, slowest.Round(time.Millisecond))
		if slowest > kind.limit+5*time.Second {
			t.Errorf("%s: cut off after %v, want %v and a little", kind.name, slowest, kind.limit)
		}
	}
	t.Logf("%d slow clients connected within %v; a request takes %v without them, %v with them", each*len(kinds), connected.Round(time.Millisecond), alone, beside)
	if beside > 10*alone+50*time.Millisecond {
		t.Errorf("a request takes %v without slow clients, %v with them", alone, beside)
	}
	if !v.isOpen() {
		t.Error("another's stream has ended")
	}
	i.waitMetric(t, "go_goroutines", atMost(goroutines+5))
}

// slowClient sends the beginning of a request, and then a drop every now and then.
type slowClient struct {
	ended chan time.Duration // how long the server kept the connection
}

func (i *instance) slowClient(t testing.TB, begin, drop string) *slowClient {
	t.Helper()
	start := time.Now()
	conn, err := net.Dial("tcp", strings.TrimPrefix(i.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	c := &slowClient{ended: make(chan time.Duration, 1)}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		defer conn.Close()
		_, err := conn.Write([]byte(begin))
		for buf := make([]byte, 4096); err == nil; {
			// The connection has ended when a read says so; until then its deadline is the pause between drops.
			_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err = conn.Read(buf); isTimeout(err) {
				_, err = conn.Write([]byte(drop))
			}
		}
		c.ended <- time.Since(start)
	}()
	return c
}

func isTimeout(err error) bool {
	failed, ok := err.(net.Error)
	return ok && failed.Timeout()
}

// askTimes is the median time of n requests, each on a connection of its own.
func (i *instance) askTimes(t testing.TB, n int) time.Duration {
	t.Helper()
	var took []time.Duration
	for range n {
		start := time.Now()
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := transport.RoundTrip(request(t, t.Context(), i.URL+"/healthz", ""))
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, resp.Body)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[n/2]
}
