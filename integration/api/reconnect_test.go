package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

func TestAPIReconnect(t *testing.T) { harness.OverHTTP1And2(t, testAPIReconnect) }

func testAPIReconnect(t *testing.T) {
	db, i := harness.ServeFirst(t)

	s := i.Watch(t, "1", harness.AliceToken(t))
	seen := s.Next(t).LastEventID
	s.Cancel()
	db.SQL(t, "update audits set progress = 50")
	db.SQL(t, "update audits set progress = 75, message = 'Generating report...'")
	again := i.Watch(t, "1", harness.AliceToken(t), "Last-Event-ID", seen)
	again.WantEvent(t, `{"audit_id":1,"status":"running","progress":75,"message":"Generating report..."}`)
	current := again.Raw.String()
	again.Cancel()
	// An id that is current, but not terminal, gets its state again.
	_, rest, _ := strings.Cut(current, "id: ")
	i.Watch(t, "1", harness.AliceToken(t), "Last-Event-ID", rest[:16]).WantSoFar(t, current)

	db.SQL(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	const terminal = "95922ea8e7dc0642"
	last := ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: " + terminal + "\ndata: {\"audit_id\":1,\"status\":\"completed\",\"progress\":100,\"geo_score\":78.5}\n\n"
	for _, tt := range []struct {
		name, query, header string
		want                int
	}{
		{"header", "", terminal, 204},
		{"last_event_id", "?last_event_id=" + terminal, "", 204},
		{"lastEventId", "?lastEventId=" + terminal, "", 204},
		{"header before query", "?last_event_id=" + seen, terminal, 204},
		{"an earlier id", "", seen, 200},
		{"an earlier id in the query", "?lastEventId=" + seen, "", 200},
		{"an earlier id in the header", "?last_event_id=" + terminal, seen, 200},
		{"no id", "", "", 200},
		{"an id of ours in capitals", "", strings.ToUpper(terminal), 200},
		{"nonsense", "?last_event_id=" + url.QueryEscape("1 or 1=1"), "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			headers := []string{"Authorization", "Bearer " + harness.AliceToken(t)}
			if tt.header != "" {
				headers = append(headers, "Last-Event-ID", tt.header)
			}
			got := i.Ask(t, "GET", harness.StreamPath("1")+tt.query, headers...)
			wantBody := ""
			if tt.want == 200 {
				wantBody = last
			}
			if got.Status != tt.want || got.Body != wantBody {
				t.Errorf("answer %d\n%s\nwant %d\n%s", got.Status, got.Body, tt.want, wantBody)
			}
		})
	}
	t.Run("204 has no body and is not kept", func(t *testing.T) {
		if harness.OverHTTP2(t) {
			return // its bytes are HTTP/1.1's
		}
		head, body := exchange(t, i, "GET "+harness.StreamPath("1")+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+harness.AliceToken(t)+"\r\nLast-Event-ID: "+terminal+"\r\n\r\n")
		if want := "HTTP/1.1 204 No Content\r\nAuditstream-Answer: final\r\nCache-Control: no-store"; head != want || body != "" {
			t.Errorf("answer\n%s\n%s\nwant\n%s", head, body, want)
		}
	})
	t.Run("the id is no pass", func(t *testing.T) {
		bob := "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "bob"})
		i.Ask(t, "GET", harness.StreamPath("1"), "Authorization", bob, "Last-Event-ID", terminal).WantRefusal(t, 403, harness.CrossUser, "")
		i.Ask(t, "GET", harness.StreamPath("1"), "Last-Event-ID", terminal).WantRefusal(t, 401, missingToken, missingChallenge)
	})
	t.Run("an audit that runs again", func(t *testing.T) {
		db.SQL(t, "update audits set status = 'running', progress = 1, geo_score = null")
		i.Watch(t, "1", harness.AliceToken(t), "Last-Event-ID", terminal).WantEvent(t, `{"audit_id":1,"status":"running","progress":1}`)
	})
}

const tooMany = "retry: RANDOM\nevent: message\ndata: {\"error\":\"Too many streams\"}\n\n"

func TestAPILimits(t *testing.T) { harness.OverHTTP1And2(t, testAPILimits) }

func testAPILimits(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve, "SSE_MAX_STREAMS=3", "SSE_MAX_STREAMS_PER_USER=2")
	bobs := db.SQL(t, "insert into audits (url, user_id) values ('https://example.com', 'bob') returning id")
	bob := harness.Token(t, jwt.MapClaims{"sub": "bob"})
	one, two := i.Watch(t, "1", harness.AliceToken(t)), i.Watch(t, "1", harness.AliceToken(t))
	one.Next(t)
	two.Next(t)

	delays := map[int]bool{}
	for range 10 {
		refused := i.Watch(t, "1", harness.AliceToken(t))
		delays[withRandomRetry(t, refused.Whole(t), tooMany)] = true
		harness.WantHeaders(t, refused.Response.Header, map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"})
	}
	if len(delays) < 3 {
		t.Errorf("10 clients were told to come back after %v ms, want times at random", delays)
	}
	// Who is at her limit takes no room from others, until the total is reached.
	third := i.Shown(t, bobs, bob)
	withRandomRetry(t, i.Watch(t, bobs, bob).Whole(t), tooMany)
	i.WantMetric(t, `auditstream_requests_refused_total{reason="too many streams"}`, 11)
	// Polling is not streaming.
	i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1")).WantStatus(t, http.StatusOK)
	// Permanent refusals stay what they are.
	i.Ask(t, "GET", harness.StreamPath("1")).WantStatus(t, http.StatusUnauthorized)

	two.Cancel()
	harness.Eventually(t, func() error { return hasRoom(t, i, bobs, bob) })
	third.Cancel()
	db.SQL(t, "update audits set status = 'completed' where id = 1") // ends one
	harness.Equal(t, one.NextProgress(t).Status, "completed", "status")
	one.Ended(t)
	i.WaitMetric(t, harness.StreamsOpen, harness.Exactly(0))
}

// hasRoom opens a stream and closes it again.
func hasRoom(t testing.TB, i *harness.Instance, id, token string) error {
	t.Helper()
	s := i.Watch(t, id, token)
	defer s.Cancel()
	if data := s.Next(t).Data; strings.Contains(data, "Too many") {
		return fmt.Errorf("no room: %s", data)
	}
	return nil
}
