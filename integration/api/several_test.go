package api

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

const severalPath = "/api/v1/sse/audits/progress"

// bothWays runs a test on streams taken from net/http and on those left to it.
func bothWays(t *testing.T, test func(t *testing.T, env string)) {
	for _, env := range []string{"SSE_HIJACK=on", "SSE_HIJACK=off"} {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			test(t, env)
		})
	}
}

func TestAPISeveral(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveral) }

func testAPISeveral(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := harness.NewDatabase(t)
		i := harness.Serve(t, db.Serve, env)
		i.WaitReady(t, "up")
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
		if got := i.Ask(t, "GET", severalPath+"?ids=1,2,3", "Authorization", "Bearer "+harness.AliceToken(t), "Last-Event-ID", end); got.Status != 204 {
			t.Errorf("status %d, want 204", got.Status)
		}
		again := i.Open(t, severalPath+"?ids=1,2,3", harness.AliceToken(t), "Last-Event-ID", first.LastEventID)
		if got := again.SeveralIDs(t); got != end {
			t.Errorf("the end's id is %s, then %s", end, got)
		}
		if got := strings.Count(again.Raw.String(), `"audit_id"`); got != 3 {
			t.Errorf("%d events, want 3:\n%s", got, again.Raw.String())
		}
	})
}

func TestAPISeveralRefusals(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveralRefusals) }

func testAPISeveralRefusals(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	db.Insert(t, "", "")
	db.SQL(t, "insert into audits (url, user_id) values ('https://example.com', 'bob')")
	const invalid = `{"error":"Invalid ids: give one list of 1 to 100 whole numbers from 1 to 9223372036854775807, separated by commas"}`
	hundred := strings.Repeat("1,", 99) + "1"
	for query, want := range map[string]struct {
		status int
		body   string
	}{
		"?ids=1,2,9":                   {403, `{"error":"Cross-user access denied: audit 2"}`},
		"?ids=1,9,2":                   {404, `{"error":"Audit not found: audit 9"}`},
		"?ids=":                        {400, invalid},
		"?ids=1,,2":                    {400, invalid},
		"?ids=0":                       {400, invalid},
		"?ids=01":                      {400, invalid},
		"?ids=9223372036854775808":     {400, invalid},
		"?ids=1&ids=1":                 {400, invalid},
		"?ids=1;2":                     {400, invalid},
		"?ids=" + hundred + ",1":       {400, invalid},
		"?ids=" + hundred + ",2&x=%zz": {400, invalid},
	} {
		i.Ask(t, "GET", severalPath+query, "Authorization", "Bearer "+harness.AliceToken(t)).WantRefusal(t, want.status, want.body, "")
	}
	i.Ask(t, "GET", severalPath+"?ids=1").WantRefusal(t, 401, missingToken, missingChallenge)
	if got := i.Ask(t, "POST", severalPath+"?ids=1", "Authorization", "Bearer "+harness.AliceToken(t)); got.Status != 405 {
		t.Errorf("POST: %d, want 405", got.Status)
	}
	s := i.Open(t, severalPath+"?ids="+hundred, harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":1,"status":"pending","progress":0}`)
}

// A stream of several counts as one; it ends when one of its audits may not be shown any more.
func TestAPISeveralLimitsAndEnds(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveralLimitsAndEnds) }

func testAPISeveralLimitsAndEnds(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := harness.NewDatabase(t)
		i := harness.Serve(t, db.Serve, env, "SSE_MAX_STREAMS_PER_USER=2")
		i.WaitReady(t, "up")
		db.Insert(t, "", "")
		db.Insert(t, "", "")
		one, two := i.Open(t, severalPath+"?ids=1,2", harness.AliceToken(t)), i.Open(t, severalPath+"?ids=2,1", harness.AliceToken(t))
		for _, s := range []*harness.Stream{one, two} {
			s.Next(t)
			s.Next(t)
		}
		withRandomRetry(t, i.Open(t, severalPath, harness.AliceToken(t)).Whole(t), tooMany)
		db.SQL(t, "update audits set user_id = 'bob', message = 'for bob alone' where id = 1")
		for _, s := range []*harness.Stream{one, two} {
			s.WantEvent(t, harness.CrossUser)
			s.Ended(t)
		}
	})
}

func TestAPISeveralOfTheUser(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveralOfTheUser) }

func testAPISeveralOfTheUser(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := harness.NewDatabase(t)
		i := harness.Serve(t, db.Serve, env, "SSE_HEARTBEAT_SECONDS=1")
		i.WaitReady(t, "up")
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
