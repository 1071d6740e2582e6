package api

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

const severalPath = "/api/v1/sse/audits/progress"

// bothWays runs a test on streams taken from net/http and on those left to it, as all of HTTP/2 are.
func bothWays(t *testing.T, test func(t *testing.T, env string)) {
	for _, env := range []string{"SSE_HIJACK=on", "SSE_HIJACK=off"} {
		if harness.OverHTTP2(t) && env == "SSE_HIJACK=on" {
			continue
		}
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			test(t, env)
		})
	}
}

func TestAPISeveral(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveral) }

func testAPISeveral(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db, i := harness.ServeNew(t, env)
		for n := range 3 {
			db.Insert(t, "status, progress", fmt.Sprintf("'running', %d", n+1))
		}
		s := i.Open(t, severalPath+"?ids=3,1,2,3", harness.AliceToken(t))
		for _, n := range []int{3, 1, 2} {
			s.WantEvent(t, fmt.Sprintf(`{"audit_id":%d,"status":"running","progress":%d}`, n, n))
		}
		if raw := s.Raw.String(); !strings.HasPrefix(raw, ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: ") || strings.Count(raw, "retry:") != 1 {
			t.Errorf("the stream began with\n%s", raw)
		}
		db.SQL(t, "update audits set progress = 50 where id = 2")
		s.WantEvent(t, `{"audit_id":2,"status":"running","progress":50}`)
		db.SQL(t, "update audits set status = 'completed', progress = 100 where id = 3")
		s.WantEvent(t, `{"audit_id":3,"status":"completed","progress":100}`)
		early := i.Open(t, severalPath+"?ids=3,1,2", harness.AliceToken(t))
		first := early.Next(t)
		early.Cancel()
		db.SQL(t, "update audits set status = 'failed', error = 'boom' where id = 1")
		s.WantEvent(t, `{"audit_id":1,"status":"failed","progress":1,"error":"boom"}`)
		db.SQL(t, "update audits set status = 'completed' where id = 2")
		s.WantEvent(t, `{"audit_id":2,"status":"completed","progress":50}`)
		end := s.SeveralIDs(t)

		// Who saw all ends is told to stay away; who saw one of them is told of all.
		i.AskAs(t, harness.AliceToken(t), severalPath+"?ids=1,2,3", "Last-Event-ID", end).WantStatus(t, 204)
		again := i.Open(t, severalPath+"?ids=1,2,3", harness.AliceToken(t), "Last-Event-ID", first.LastEventID)
		harness.Equal(t, again.SeveralIDs(t), end, "the id of the end, the second time")
		harness.Equal(t, strings.Count(again.Raw.String(), `"audit_id"`), 3, "events", again.Raw.String())
	})
}

func TestAPISeveralOfTheUser(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveralOfTheUser) }

func testAPISeveralOfTheUser(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db, i := harness.ServeNew(t, env, "SSE_HEARTBEAT_SECONDS=1")
		user := harness.Token(t, jwt.MapClaims{"sub": "alice", "email": "Alice@example.com"})
		none := i.Open(t, severalPath, harness.Token(t, jwt.MapClaims{"sub": "nobody"}))
		none.WantSoFar(t, ": heartbeat every 1 s\n\nretry: 5000\n\n: heartbeat\n\n")
		db.Insert(t, "status", "'running'")
		db.Insert(t, "status", "'completed'")
		db.SQL(t, "insert into audits (url, user_id) values ('https://example.com', 'bob')")
		db.SQL(t, "insert into audits (url, user_email, status) values ('https://example.com', 'aLICE@example.com', 'running')")

		s := i.Open(t, severalPath, user)
		s.WantEvent(t, `{"audit_id":1,"status":"running","progress":0}`)
		s.WantEvent(t, `{"audit_id":4,"status":"running","progress":0}`)
		db.Insert(t, "progress", "7") // begins later
		s.WantEvent(t, `{"audit_id":5,"status":"pending","progress":7}`)
		db.SQL(t, "update audits set progress = 50 where id = 3") // bob's
		db.SQL(t, "delete from audits where id = 4")
		db.SQL(t, "update audits set status = 'completed' where id = 1")
		s.WantEvent(t, `{"audit_id":1,"status":"completed","progress":0}`)
		db.SQL(t, "update audits set status = 'running', progress = 1 where id = 2") // runs again
		s.WantEvent(t, `{"audit_id":2,"status":"running","progress":1}`)
		db.SQL(t, "update audits set status = 'failed'")
		for range 2 {
			if p := s.NextProgress(t); p.AuditID != 2 && p.AuditID != 5 || p.Status != "failed" {
				t.Errorf("event %+v, want the ends of 2 and 5", p)
			}
		}
		s.WantSoFar(t, s.Raw.String()+": heartbeat\n\n") // it goes on
	})
}
