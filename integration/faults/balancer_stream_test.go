package faults

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"auditstream/integration/harness"
)

// What the three proxies are told in deploy/ leaves a stream as it is, over both versions of HTTP.
func TestBalancer(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, []string) *harness.Balancer{
		"nginx": harness.StartNginx, "haproxy": startHAProxy, "caddy": startCaddy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := harness.NewDatabase(t)
			f := &harness.Fleet{Running: make([]*harness.Instance, 3)}
			addrs := make([]string, len(f.Running))
			for k := range addrs {
				addrs[k] = harness.QuietAddr(t)
				f.Set(k, harness.Launch(t, harness.PlainBinary(t), db.Serve, "HTTP_ADDR="+addrs[k], "SSE_HEARTBEAT_SECONDS=1", "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"))
			}
			for k := range addrs {
				f.Get(k).WaitReady(t, "up")
			}
			b := start(t, addrs)
			answersForItself(t, b, db)
			for _, http2 := range []bool{false, true} {
				passesAStream(t, b, db, f, http2)
				passesStatuses(t, b, db, http2)
			}
			passesTheEnd(t, b, db, f)
		})
	}
}

// Without HAProxy's abortonclose a stream over HTTP/1.1 outlives its client until the next heartbeat, here for a minute.
func TestBalancerHAProxyTellsThatAClientHasGone(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	addr := harness.QuietAddr(t)
	i := harness.Launch(t, harness.PlainBinary(t), db.Serve, "HTTP_ADDR="+addr, "SSE_HEARTBEAT_SECONDS=60")
	i.WaitReady(t, "up")
	b := startHAProxy(t, []string{addr, harness.QuietAddr(t), harness.QuietAddr(t)})
	answersForItself(t, b, db)
	id := db.InsertMany(t, 1)[0]
	s := b.Open(t, false, "/api/v1/sse/audits/"+id+"/progress", harness.AliceToken(t))
	s.NextProgress(t)
	s.Cancel()
	i.WaitMetric(t, "auditstream_streams_open", func(open float64) bool { return open == 0 })
}

// answersForItself waits until the balancer has found the instances: HAProxy and Caddy ask them first.
func answersForItself(t testing.TB, b *harness.Balancer, db harness.Database) {
	t.Helper()
	id := db.InsertMany(t, 1)[0]
	harness.Eventually(t, func() error {
		s := b.Open(t, false, "/api/v1/sse/audits/"+id+"/progress", harness.AliceToken(t))
		defer s.Cancel()
		if s.NextProgress(t).AuditID == 0 {
			return errors.New("no instance is found: " + s.Raw.String())
		}
		return nil
	})
}

// passesAStream reads each event before the next one is caused, so that none can wait for more to come.
func passesAStream(t testing.TB, b *harness.Balancer, db harness.Database, f *harness.Fleet, http2 bool) {
	t.Helper()
	id := db.InsertMany(t, 1)[0]
	s := b.Open(t, http2, "/api/v1/sse/audits/"+id+"/progress", harness.AliceToken(t))
	harness.WantHeaders(t, s.Response.Header, map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform"})
	for n := range 4 {
		if n > 0 {
			db.SQL(t, fmt.Sprintf("update audits set total_pages = %d where id = %s", n, id))
		}
		s.WantState(t, n)
	}
	harness.WaitIn(t, s.Raw.String, ": heartbeat\n\n")
	s.Cancel() // the client hangs up
	harness.Becomes(t, f.Streams, 0, "streams that are open after the client has gone")
}

func passesStatuses(t testing.TB, b *harness.Balancer, db harness.Database, http2 bool) {
	t.Helper()
	id := db.InsertMany(t, 1)[0]
	path := "/api/v1/sse/audits/" + id + "/progress"
	db.SQL(t, "update audits set status = 'completed' where id = "+id)
	s := b.Open(t, http2, path, harness.AliceToken(t))
	last := s.Next(t)
	s.Ended(t)
	for _, c := range []struct {
		path, token string
		headers     []string
		status      int
		header      string // a part of WWW-Authenticate or ETag
		body        string
	}{
		{path, harness.AliceToken(t), []string{"Last-Event-ID", last.LastEventID}, http.StatusNoContent, "", ""},
		{path, "", nil, http.StatusUnauthorized, "Bearer", `{"error":`},
		{"/api/v1/sse/audits/999999/progress", harness.AliceToken(t), nil, http.StatusNotFound, "", `{"error":`},
		{"/api/v1/sse/audits/x/progress", harness.AliceToken(t), nil, http.StatusBadRequest, "", `{"error":`},
		{"/api/v1/audits/" + id + "/status", harness.AliceToken(t), nil, http.StatusOK, `"`, `{"audit_id":` + id},
	} {
		s := b.Open(t, http2, c.path, c.token, c.headers...)
		s.Ended(t)
		h := s.Response.Header.Get("WWW-Authenticate") + s.Response.Header.Get("ETag")
		if s.Response.StatusCode != c.status || !strings.HasPrefix(s.Raw.String(), c.body) || !strings.Contains(h, c.header) {
			t.Errorf("%s: GET %s: %d %q, WWW-Authenticate or ETag %q; want %d %q, %q", b.Name, c.path, s.Response.StatusCode, s.Raw.String(), h, c.status, c.body, c.header)
		}
	}
}

// passesTheEnd stops all instances: the stream's end reaches the client as it was said, and a client that comes back is
// not told a status that a native EventSource would take for the last.
func passesTheEnd(t testing.TB, b *harness.Balancer, db harness.Database, f *harness.Fleet) {
	t.Helper()
	id := db.InsertMany(t, 1)[0]
	path := "/api/v1/sse/audits/" + id + "/progress"
	var streams []*harness.Stream
	for _, http2 := range []bool{false, true} {
		s := b.Open(t, http2, path, harness.AliceToken(t))
		s.Next(t)
		streams = append(streams, s)
	}
	for k := range f.Running {
		f.Get(k).Signal(t, syscall.SIGTERM)
	}
	for _, s := range streams {
		s.Ended(t)
		harness.Equal(t, strings.Count(s.Raw.String(), "retry: "), 2, "times to come back that the stream has told", b.Name, s.Raw.String())
	}
	for k := range f.Running {
		harness.Equal(t, f.Get(k).End(t), 0, "exit status after SIGTERM, of instance", k, "behind", b.Name)
	}
	s := b.Open(t, false, path, harness.AliceToken(t))
	if p := s.NextProgress(t); p.Error == nil || *p.Error != "Internal server error" {
		t.Errorf("%s without an instance: %q, want an error event", b.Name, s.Raw.String())
	}
	s.Ended(t)
	if got := s.Response.Header.Get("Content-Type"); s.Response.StatusCode != http.StatusOK || got != "text/event-stream" || !unavailable.MatchString(s.Raw.String()) {
		t.Errorf("%s without an instance: %s, %s, %q, want 200, text/event-stream and a time to come back", b.Name, s.Response.Status, got, s.Raw.String())
	}
}
