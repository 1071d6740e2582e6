package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

func TestAPIStatus(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	auth := "Authorization: Bearer " + harness.AliceToken(t) + "\r\n"

	head, body := exchange(t, i, "GET "+harness.StatusPath("1")+" HTTP/1.1\r\nHost: localhost\r\n"+auth+"\r\n")
	want := `{"audit_id":1,"status":"running","progress":25,"message":"Analyzing pages..."}`
	wantHead := "HTTP/1.1 200 OK\r\nCache-Control: private, no-cache\r\nContent-Length: 78\r\nContent-Type: application/json\r\n" +
		"Etag: \"0249ba9950110425\"\r\nVary: Authorization, Cookie\r\nX-Content-Type-Options: nosniff"
	if head != wantHead || body != want {
		t.Errorf("answer\n%s\n%s\nwant\n%s\n%s", head, body, wantHead, want)
	}
	if event := i.Watch(t, "1", harness.AliceToken(t)).Next(t); event.Data != body || `"`+event.LastEventID+`"` != `"0249ba9950110425"` {
		t.Errorf("event %s with id %s, want the same as /status", event.Data, event.LastEventID)
	}
	if head, body := exchange(t, i, "HEAD "+harness.StatusPath("1")+" HTTP/1.1\r\nHost: localhost\r\n"+auth+"\r\n"); head != wantHead || body != "" {
		t.Errorf("HEAD\n%s\n%s\nwant\n%s", head, body, wantHead)
	}

	t.Run("If-None-Match", func(t *testing.T) {
		for _, tt := range []struct {
			value string
			want  int
		}{
			{`"0249ba9950110425"`, 304}, {`W/"0249ba9950110425"`, 304}, {`"x", "0249ba9950110425"`, 304}, {`*`, 304},
			{`"51a5684740282c14"`, 200}, {`0249ba9950110425`, 200}, {`""`, 200},
		} {
			for _, method := range []string{"GET", "HEAD"} {
				head, body := exchange(t, i, method+" "+harness.StatusPath("1")+" HTTP/1.1\r\nHost: localhost\r\n"+auth+"If-None-Match: "+tt.value+"\r\n\r\n")
				wantHead, wantBody := wantHead, want
				if method == "HEAD" {
					wantBody = ""
				}
				if tt.want == 304 {
					wantHead = "HTTP/1.1 304 Not Modified\r\nCache-Control: private, no-cache\r\nEtag: \"0249ba9950110425\"\r\nVary: Authorization, Cookie"
					wantBody = ""
				}
				if head != wantHead || body != wantBody {
					t.Errorf("%s with %s\n%s\n%s\nwant\n%s\n%s", method, tt.value, head, body, wantHead, wantBody)
				}
			}
		}
	})
	t.Run("a 304 is for the owner alone", func(t *testing.T) {
		bob := "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "bob"})
		i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", bob, "If-None-Match", `"0249ba9950110425"`).WantRefusal(t, 403, harness.CrossUser, "")
		i.Ask(t, "GET", harness.StatusPath("1"), "If-None-Match", `*`).WantRefusal(t, 401, missingToken, missingChallenge)
	})
	t.Run("changes show at once", func(t *testing.T) {
		for _, progress := range []string{"30", "31", "32"} {
			db.SQL(t, "update audits set progress = "+progress)
			got := i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+harness.AliceToken(t), "If-None-Match", `"0249ba9950110425"`)
			if want := `{"audit_id":1,"status":"running","progress":` + progress + `,"message":"Analyzing pages..."}`; got.Status != 200 || got.Body != want {
				t.Errorf("answer %d %s, want 200 %s", got.Status, got.Body, want)
			}
		}
	})
	t.Run("what has ended", func(t *testing.T) {
		db.SQL(t, "update audits set status = 'failed', error = 'boom <&>'")
		got := i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+harness.AliceToken(t))
		if want := `{"audit_id":1,"status":"failed","progress":32,"message":"Analyzing pages...","error":"boom <&>"}`; got.Status != 200 || got.Body != want {
			t.Errorf("answer %d %s, want 200 %s", got.Status, got.Body, want)
		}
	})
}

func TestAPIOperatorsRoutes(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	i.Ask(t, "GET", "/healthz").WantOpen(t, 200, `{"status":"ok"}`)
	i.Ask(t, "GET", "/readyz").WantOpen(t, 200, `{"status":"ready","database":"up","listener":"up"}`)
	for _, path := range []string{"/healthz", "/readyz", "/openapi.yaml"} {
		if got := i.Ask(t, "HEAD", path); got.Status != 200 || got.Body != "" {
			t.Errorf("HEAD %s: %d %q, want 200 without a body", path, got.Status, got.Body)
		}
	}
	api := i.Ask(t, "GET", "/openapi.yaml")
	if got := api.Header.Get("Content-Type"); api.Status != 200 || got != "application/yaml" {
		t.Errorf("/openapi.yaml: %d, Content-Type %s, want 200, application/yaml", api.Status, got)
	}
	for _, want := range []string{
		"openapi: 3.1.0", "/api/v1/sse/audits/{audit_id}/progress", "/api/v1/audits/{audit_id}/status", "text/event-stream", "/healthz", "/readyz",
		"Last-Event-ID", "geo_score",
	} {
		if !strings.Contains(api.Body, want) {
			t.Errorf("/openapi.yaml does not mention %s", want)
		}
	}

	t.Run("metrics and profiles are on ADMIN_ADDR alone", func(t *testing.T) {
		for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/symbol"} {
			i.Ask(t, "GET", path).WantRefusal(t, 404, `{"error":"Not found"}`, "")
			if got := (&harness.Instance{URL: i.Admin}).Ask(t, "GET", path); got.Status != 200 {
				t.Errorf("%s on ADMIN_ADDR: %d, want 200", path, got.Status)
			}
		}
		for _, path := range []string{harness.StatusPath("1"), harness.StreamPath("1"), "/openapi.yaml"} {
			if got := (&harness.Instance{URL: i.Admin}).Ask(t, "GET", path, "Authorization", "Bearer "+harness.AliceToken(t)); got.Status != 404 {
				t.Errorf("%s on ADMIN_ADDR: %d, want 404", path, got.Status)
			}
		}
	})
}

func TestAPIReadyzSaysPolling(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve, "DATABASE_LISTEN_URL=postgres://nobody@127.0.0.1:1/none", "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	i.WaitReady(t, "polling")
	s := i.Watch(t, "1", harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":25,"message":"Analyzing pages..."}`)
	db.SQL(t, "update audits set progress = 26")
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":26,"message":"Analyzing pages..."}`)
	if got := i.Metric(t, "auditstream_listener_up"); got != 0 {
		t.Errorf("auditstream_listener_up %v, want 0", got)
	}
}

func TestAPIMetricsNameNobody(t *testing.T) { harness.OverHTTP1And2(t, testAPIMetricsNameNobody) }

func testAPIMetricsNameNobody(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	db.SQL(t, `insert into audits (id, url, user_id, status, progress) overriding system value values (918273645, 'https://example.com', 'alice', 'running', 1)`)
	s := i.Watch(t, "918273645", harness.AliceToken(t))
	s.Next(t)
	if got := i.Metric(t, "auditstream_streams_open"); got != 1 {
		t.Errorf("auditstream_streams_open %v, want 1", got)
	}
	// The row is read again once its lock is held. What that read finds has no notification from which the time to its event would count.
	db.WatchedBy(t, "918273645", 1)
	i.WaitMetric(t, `auditstream_read_duration_seconds_count{result="ok"}`, harness.AtLeast(2))
	db.SQL(t, "update audits set progress = 2, message = 'whisper'")
	s.Next(t)
	// Each refusal, too.
	for _, headers := range [][]string{
		nil, {"Authorization", "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "mallory"})}, {"Authorization", "Bearer x"}, {"Authorization", "Bearer"},
	} {
		i.Ask(t, "GET", harness.StreamPath("918273645"), headers...)
	}
	i.Ask(t, "GET", harness.StreamPath("564738291"), "Authorization", "Bearer "+harness.AliceToken(t))
	i.Ask(t, "GET", "/918273645")
	db.SQL(t, "update audits set status = 'completed'")
	s.Next(t)
	s.Ended(t)
	harness.Eventually(t, func() error {
		if got := i.Metric(t, `auditstream_streams_ended_total{reason="terminal"}`); got != 1 {
			return fmt.Errorf("%v streams ended, want 1", got)
		}
		return nil
	})

	resp, err := http.Get(i.Admin + "/metrics")
	harness.NoError(t, err)
	text := harness.ReadAll(t, resp.Body)
	for _, private := range []string{"918273645", "564738291", "alice", "mallory", "whisper", "example.com"} {
		if strings.Contains(text, private) {
			t.Errorf("/metrics names %s", private)
		}
	}
	for name, want := range map[string]float64{
		"auditstream_streams_open":                                             0,
		"auditstream_events_sent_total":                                        3,
		"auditstream_states_coalesced_total":                                   0,
		"auditstream_listener_up":                                              1,
		"auditstream_listener_connects_total":                                  1,
		"auditstream_watched_audits":                                           0,
		"auditstream_notifications_missed_total":                               0,
		`auditstream_notifications_total{kind="row"}`:                          2, // two updates; nobody watched the insert
		"auditstream_commit_to_flush_seconds_count":                            2,
		`auditstream_requests_refused_total{reason="missing token"}`:           1,
		`auditstream_requests_refused_total{reason="invalid token"}`:           1,
		`auditstream_requests_refused_total{reason="malformed authorization"}`: 1,
		`auditstream_requests_refused_total{reason="forbidden"}`:               1,
		`auditstream_requests_refused_total{reason="not found"}`:               1,
	} {
		if got := i.Metric(t, name); got != want {
			t.Errorf("%s %v, want %v", name, got, want)
		}
	}
	if got := i.Metric(t, `auditstream_read_duration_seconds_count{result="ok"}`); got < 3 {
		t.Errorf("%v reads were measured, want 3 at least", got)
	}
}
