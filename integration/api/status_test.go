package api

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

func TestAPIStatus(t *testing.T) {
	t.Parallel()
	db, i := harness.ServeFirst(t)
	// An origin is none where none is configured.
	auth := "Authorization: Bearer " + harness.AliceToken(t) + "\r\nOrigin: https://app.example.com\r\n"

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

	head, body = exchange(t, i, "GET "+harness.StatusPath("1")+" HTTP/1.1\r\nHost: localhost\r\n"+auth+"If-None-Match: \"0249ba9950110425\"\r\n\r\n")
	if head != "HTTP/1.1 304 Not Modified\r\nCache-Control: private, no-cache\r\nEtag: \"0249ba9950110425\"\r\nVary: Authorization, Cookie" || body != "" {
		t.Errorf("the same again\n%s\n%s", head, body)
	}
	t.Run("a 304 is for the owner alone", func(t *testing.T) {
		bob := "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "bob"})
		i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", bob, "If-None-Match", `"0249ba9950110425"`).WantRefusal(t, 403, harness.CrossUser, "")
		i.Ask(t, "GET", harness.StatusPath("1"), "If-None-Match", `*`).WantRefusal(t, 401, missingToken, missingChallenge)
	})
	db.SQL(t, "update audits set progress = 30")
	if got := i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1"), "If-None-Match", `"0249ba9950110425"`); got.Status != 200 || !strings.Contains(got.Body, `"progress":30`) {
		t.Errorf("after a change: %d %s, want it", got.Status, got.Body)
	}
}

func TestAPIMetricsNameNobody(t *testing.T) { harness.OverHTTP1And2(t, testAPIMetricsNameNobody) }

func testAPIMetricsNameNobody(t *testing.T) {
	db, i := harness.ServeNew(t)
	db.SQL(t, `insert into audits (id, url, user_id, status, progress) overriding system value values (918273645, 'https://example.com', 'alice', 'running', 1)`)
	s := i.Shown(t, "918273645", harness.AliceToken(t))
	i.WantMetric(t, "auditstream_streams_open", 1)
	// The row is read again once its lock is held. What that read finds has no notification from which the time to its event would count.
	db.WatchedBy(t, "918273645", 1)
	i.WaitMetric(t, `auditstream_read_duration_seconds_count{result="ok"}`, harness.AtLeast(2))
	const changes = 10
	for n := range changes - 1 {
		db.SQL(t, fmt.Sprintf("update audits set progress = %d, message = 'whisper'", n+2))
		s.Next(t)
	}
	// Each refusal, too.
	for _, headers := range [][]string{
		nil, {"Authorization", "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "mallory"})}, {"Authorization", "Bearer x"}, {"Authorization", "Bearer"},
	} {
		i.Ask(t, "GET", harness.StreamPath("918273645"), headers...)
	}
	i.AskAs(t, harness.AliceToken(t), harness.StreamPath("564738291"))
	i.Ask(t, "GET", "/918273645")
	db.SQL(t, "update audits set status = 'completed'")
	s.Next(t)
	s.Ended(t)
	i.WaitMetric(t, `auditstream_streams_ended_total{reason="terminal"}`, harness.Exactly(1))

	text := (&harness.Instance{URL: i.Admin}).Ask(t, "GET", "/metrics").Body
	harness.WantNoneIn(t, text, "918273645", "564738291", "alice", "mallory", "whisper", "example.com")
	for name, want := range map[string]float64{
		"auditstream_streams_open":                                             0,
		"auditstream_events_sent_total":                                        changes + 1,
		"auditstream_states_coalesced_total":                                   0,
		"auditstream_listener_up":                                              1,
		"auditstream_listener_connects_total":                                  1,
		"auditstream_watched_audits":                                           0,
		"auditstream_notifications_missed_total":                               0,
		`auditstream_notifications_total{kind="row"}`:                          changes, // nobody watched the insert
		`auditstream_requests_refused_total{reason="missing token"}`:           1,
		`auditstream_requests_refused_total{reason="invalid token"}`:           1,
		`auditstream_requests_refused_total{reason="malformed authorization"}`: 1,
		`auditstream_requests_refused_total{reason="forbidden"}`:               1,
		`auditstream_requests_refused_total{reason="not found"}`:               1,
	} {
		i.WantMetric(t, name, want)
	}
	// A read that began just before a notification may find its change already, which is then not counted.
	if got := i.Metric(t, "auditstream_commit_to_flush_seconds_count"); got < changes/2 || got > changes {
		t.Errorf("the time to the flush was measured %v times, want %d, or a few less", got, changes)
	}
	if got := i.Metric(t, `auditstream_read_duration_seconds_count{result="ok"}`); got < 3 {
		t.Errorf("%v reads were measured, want 3 at least", got)
	}
}
