package integration

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// What the three proxies are told in deploy/ leaves a stream as it is, over both versions of HTTP.
func TestBalancer(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, []string) *balancer{
		"nginx": startNginx, "haproxy": startHAProxy, "caddy": startCaddy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			f := &fleet{running: make([]*instance, 3)}
			addrs := make([]string, len(f.running))
			for k := range addrs {
				addrs[k] = quietAddr(t)
				f.set(k, launch(t, plainBinary(t), db.Serve, "HTTP_ADDR="+addrs[k], "SSE_HEARTBEAT_SECONDS=1", "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"))
			}
			for k := range addrs {
				f.get(k).waitReady(t, "up")
			}
			b := start(t, addrs)
			b.answersForItself(t, db)
			for _, http2 := range []bool{false, true} {
				b.passesAStream(t, db, f, http2)
				b.passesStatuses(t, db, http2)
			}
			b.passesTheEnd(t, db, f)
		})
	}
}

// Without HAProxy's abortonclose a stream over HTTP/1.1 outlives its client until the next heartbeat, here for a minute.
func TestBalancerHAProxyTellsThatAClientHasGone(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	addr := quietAddr(t)
	i := launch(t, plainBinary(t), db.Serve, "HTTP_ADDR="+addr, "SSE_HEARTBEAT_SECONDS=60")
	i.waitReady(t, "up")
	b := startHAProxy(t, []string{addr, quietAddr(t), quietAddr(t)})
	b.answersForItself(t, db)
	id := db.insertMany(t, 1)[0]
	s := b.open(t, false, "/api/v1/sse/audits/"+id+"/progress", alice(t))
	s.nextProgress(t)
	s.cancel()
	i.waitMetric(t, "auditstream_streams_open", func(open float64) bool { return open == 0 })
}

// open is a stream's, or any other answer, through the balancer.
func (b *balancer) open(t testing.TB, http2 bool, path, token string, headers ...string) *stream {
	t.Helper()
	s := (&instance{URL: b.URL}).openOn(t, b.transport(http2), path, token, headers...)
	if want := map[bool]int{false: 1, true: 2}[http2]; s.Response.ProtoMajor != want {
		t.Errorf("%s answered in %s, want HTTP/%d", b.name, s.Response.Proto, want)
	}
	return s
}

// answersForItself waits until the balancer has found the instances: HAProxy and Caddy ask them first.
func (b *balancer) answersForItself(t testing.TB, db database) {
	t.Helper()
	id := db.insertMany(t, 1)[0]
	eventually(t, func() error {
		s := b.open(t, false, "/api/v1/sse/audits/"+id+"/progress", alice(t))
		defer s.cancel()
		if s.nextProgress(t).AuditID == 0 {
			return errors.New("no instance is found: " + s.raw.String())
		}
		return nil
	})
}

// passesAStream reads each event before the next one is caused, so that none can wait for more to come.
func (b *balancer) passesAStream(t testing.TB, db database, f *fleet, http2 bool) {
	t.Helper()
	id := db.insertMany(t, 1)[0]
	s := b.open(t, http2, "/api/v1/sse/audits/"+id+"/progress", alice(t))
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform"} {
		if got := s.Response.Header.Get(name); got != want {
			t.Errorf("%s: %s: %q, want %q", b.name, name, got, want)
		}
	}
	for n := range 4 {
		if n > 0 {
			db.sql(t, fmt.Sprintf("update audits set total_pages = %d where id = %s", n, id))
		}
		if p := s.nextProgress(t); *p.TotalPages != n {
			t.Errorf("%s: the event shows state %d, want %d", b.name, *p.TotalPages, n)
		}
	}
	eventually(t, func() error {
		if !strings.Contains(s.raw.String(), ": heartbeat\n\n") {
			return fmt.Errorf("%s: no heartbeat came through; the stream sent:\n%s", b.name, s.raw.String())
		}
		return nil
	})
	s.cancel() // the client hangs up
	eventually(t, func() error {
		if open := f.streams(); open != 0 {
			return fmt.Errorf("%s: %d streams are open at the instances after the client has gone", b.name, open)
		}
		return nil
	})
}

func (b *balancer) passesStatuses(t testing.TB, db database, http2 bool) {
	t.Helper()
	id := db.insertMany(t, 1)[0]
	path := "/api/v1/sse/audits/" + id + "/progress"
	db.sql(t, "update audits set status = 'completed' where id = "+id)
	s := b.open(t, http2, path, alice(t))
	last := s.next(t)
	s.ended(t)
	for _, c := range []struct {
		path, token string
		headers     []string
		status      int
		header      string // a part of WWW-Authenticate or ETag
		body        string
	}{
		{path, alice(t), []string{"Last-Event-ID", last.LastEventID}, http.StatusNoContent, "", ""},
		{path, "", nil, http.StatusUnauthorized, "Bearer", `{"error":`},
		{"/api/v1/sse/audits/999999/progress", alice(t), nil, http.StatusNotFound, "", `{"error":`},
		{"/api/v1/sse/audits/x/progress", alice(t), nil, http.StatusBadRequest, "", `{"error":`},
		{"/api/v1/audits/" + id + "/status", alice(t), nil, http.StatusOK, `"`, `{"audit_id":` + id},
	} {
		s := b.open(t, http2, c.path, c.token, c.headers...)
		s.ended(t)
		h := s.Response.Header.Get("WWW-Authenticate") + s.Response.Header.Get("ETag")
		if s.Response.StatusCode != c.status || !strings.HasPrefix(s.raw.String(), c.body) || !strings.Contains(h, c.header) {
			t.Errorf("%s: GET %s: %d %q, WWW-Authenticate or ETag %q; want %d %q, %q", b.name, c.path, s.Response.StatusCode, s.raw.String(), h, c.status, c.body, c.header)
		}
	}
}

// passesTheEnd stops all instances: the stream's end reaches the client as it was said, and a client that comes back is
// not told a status that a native EventSource would take for the last.
func (b *balancer) passesTheEnd(t testing.TB, db database, f *fleet) {
	t.Helper()
	id := db.insertMany(t, 1)[0]
	path := "/api/v1/sse/audits/" + id + "/progress"
	var streams []*stream
	for _, http2 := range []bool{false, true} {
		s := b.open(t, http2, path, alice(t))
		s.next(t)
		streams = append(streams, s)
	}
	for k := range f.running {
		f.get(k).signal(t, syscall.SIGTERM)
	}
	for _, s := range streams {
		s.ended(t)
		if got := strings.Count(s.raw.String(), "retry: "); got != 2 {
			t.Errorf("%s: the stream ended without a time to come back:\n%s", b.name, s.raw.String())
		}
	}
	for k := range f.running {
		if code := f.get(k).end(t); code != 0 {
			t.Errorf("instance %d behind %s: exit status %d after SIGTERM, want 0", k, b.name, code)
		}
	}
	s := b.open(t, false, path, alice(t))
	if p := s.nextProgress(t); p.Error == nil || *p.Error != "Internal server error" {
		t.Errorf("%s without an instance: %q, want an error event", b.name, s.raw.String())
	}
	s.ended(t)
	if got := s.Response.Header.Get("Content-Type"); s.Response.StatusCode != http.StatusOK || got != "text/event-stream" || !unavailable.MatchString(s.raw.String()) {
		t.Errorf("%s without an instance: %s, %s, %q, want 200, text/event-stream and a time to come back", b.name, s.Response.Status, got, s.raw.String())
	}
}
