package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

func TestAPIReconnect(t *testing.T) { overBoth(t, testAPIReconnect) }

func testAPIReconnect(t *testing.T) {
	db := newFirstAudit(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")

	s := i.watch(t, "1", alice(t))
	seen := s.next(t).LastEventID
	s.cancel()
	db.sql(t, "update audits set progress = 50")
	db.sql(t, "update audits set progress = 75, message = 'Generating report...'")
	again := i.watch(t, "1", alice(t), "Last-Event-ID", seen)
	again.wantEvent(t, `{"audit_id":1,"status":"running","progress":75,"message":"Generating report..."}`)
	current := again.raw.String()
	again.cancel()
	// An id that is current, but not terminal, gets its state again.
	_, rest, _ := strings.Cut(current, "id: ")
	i.watch(t, "1", alice(t), "Last-Event-ID", rest[:16]).wantSoFar(t, current)

	db.sql(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
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
			headers := []string{"Authorization", "Bearer " + alice(t)}
			if tt.header != "" {
				headers = append(headers, "Last-Event-ID", tt.header)
			}
			got := i.ask(t, "GET", streamPath("1")+tt.query, headers...)
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
		if overHTTP2(t) {
			return // its bytes are HTTP/1.1's
		}
		head, body := exchange(t, i, "GET "+streamPath("1")+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+alice(t)+"\r\nLast-Event-ID: "+terminal+"\r\n\r\n")
		if want := "HTTP/1.1 204 No Content\r\nAuditstream-Answer: final\r\nCache-Control: no-store"; head != want || body != "" {
			t.Errorf("answer\n%s\n%s\nwant\n%s", head, body, want)
		}
	})
	t.Run("the id is no pass", func(t *testing.T) {
		bob := "Bearer " + token(t, jwt.MapClaims{"sub": "bob"})
		i.ask(t, "GET", streamPath("1"), "Authorization", bob, "Last-Event-ID", terminal).wantRefusal(t, 403, crossUser, "")
		i.ask(t, "GET", streamPath("1"), "Last-Event-ID", terminal).wantRefusal(t, 401, missingToken, missingChallenge)
	})
	t.Run("an audit that runs again", func(t *testing.T) {
		db.sql(t, "update audits set status = 'running', progress = 1, geo_score = null")
		i.watch(t, "1", alice(t), "Last-Event-ID", terminal).wantEvent(t, `{"audit_id":1,"status":"running","progress":1}`)
	})
}

const tooMany = "retry: RANDOM\nevent: message\ndata: {\"error\":\"Too many streams\"}\n\n"

func TestAPILimits(t *testing.T) { overBoth(t, testAPILimits) }

func testAPILimits(t *testing.T) {
	db := newFirstAudit(t)
	i := serve(t, db.Serve, "SSE_MAX_STREAMS=3", "SSE_MAX_STREAMS_PER_USER=2")
	bobs := db.sql(t, "insert into audits (url, user_id) values ('https://example.com', 'bob') returning id")
	bob := token(t, jwt.MapClaims{"sub": "bob"})
	one, two := i.watch(t, "1", alice(t)), i.watch(t, "1", alice(t))
	one.next(t)
	two.next(t)

	delays := map[int]bool{}
	for range 10 {
		refused := i.watch(t, "1", alice(t))
		delays[withRandomRetry(t, refused.whole(t), tooMany)] = true
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"} {
			if got := refused.Response.Header.Get(name); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
	if len(delays) < 3 {
		t.Errorf("10 clients were told to come back after %v ms, want times at random", delays)
	}
	// Who is at her limit takes no room from others, until the total is reached.
	third := i.watch(t, bobs, bob)
	third.next(t)
	withRandomRetry(t, i.watch(t, bobs, bob).whole(t), tooMany)
	if got := i.metric(t, `auditstream_requests_refused_total{reason="too many streams"}`); got != 11 {
		t.Errorf("%v streams were counted as refused, want 11", got)
	}
	// Polling is not streaming.
	if got := i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+alice(t)); got.Status != http.StatusOK {
		t.Errorf("status %d %s, want 200", got.Status, got.Body)
	}
	// Permanent refusals stay what they are.
	if got := i.ask(t, "GET", streamPath("1")); got.Status != http.StatusUnauthorized {
		t.Errorf("without a token %d, want 401", got.Status)
	}

	two.cancel()
	eventually(t, func() error { return hasRoom(t, i, bobs, bob) })
	third.cancel()
	db.sql(t, "update audits set status = 'completed' where id = 1") // ends one
	if got := one.nextProgress(t).Status; got != "completed" {
		t.Errorf("status %q, want completed", got)
	}
	one.ended(t)
	eventually(t, func() error {
		if open := i.metric(t, "auditstream_streams_open"); open != 0 {
			return fmt.Errorf("%v streams open, want none", open)
		}
		return nil
	})
}

// hasRoom opens a stream and closes it again.
func hasRoom(t testing.TB, i *instance, id, token string) error {
	t.Helper()
	s := i.watch(t, id, token)
	defer s.cancel()
	if data := s.next(t).Data; strings.Contains(data, "Too many") {
		return fmt.Errorf("no room: %s", data)
	}
	return nil
}

func TestAPIDatabaseUnreachable(t *testing.T) { overBoth(t, testAPIDatabaseUnreachable) }

func testAPIDatabaseUnreachable(t *testing.T) {
	server := pgtest.NewServer(t)
	db := adopt(t, server.DSN("postgres"))
	db.insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	if err := server.StopImmediate(t.Context()); err != nil {
		t.Fatal(err)
	}

	refused := i.watch(t, "1", alice(t))
	withRandomRetry(t, refused.whole(t), "retry: RANDOM\nevent: message\ndata: {\"error\":\"Internal server error\"}\n\n")
	if got := refused.Response.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %s, want text/event-stream", got)
	}
	status := i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+alice(t))
	status.wantRefusal(t, 503, `{"error":"Internal server error"}`, "")
	if after, err := strconv.Atoi(status.Header.Get("Retry-After")); err != nil || after < 1 || after > 8 {
		t.Errorf("Retry-After: %q, want some seconds", status.Header.Get("Retry-After"))
	}
	// What needs no database is answered as ever.
	i.ask(t, "GET", streamPath("1")).wantRefusal(t, 401, missingToken, missingChallenge)
	i.ask(t, "GET", streamPath("0"), "Authorization", "Bearer "+alice(t)).wantRefusal(t, 400, badAuditID, "")
	i.ask(t, "GET", "/healthz").wantOpen(t, 200, `{"status":"ok"}`)
	eventually(t, func() error {
		ready := i.ask(t, "GET", "/readyz")
		if want := `{"status":"unavailable","database":"down","listener":"polling"}`; ready.Status != 503 || ready.Body != want || ready.Header.Get("Retry-After") != "1" {
			return fmt.Errorf("/readyz: %d %s, want 503 %s", ready.Status, ready.Body, want)
		}
		return nil
	})

	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.waitReady(t, "up")
	s := i.watch(t, "1", alice(t))
	s.wantSoFar(t, firstEvent)
	s.cancel()
}
