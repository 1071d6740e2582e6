package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

const severalPath = "/api/v1/sse/audits/progress"

// severalIDs is what the stream ended with: a block without data, which is no event, with the id of all ends.
func (s *stream) severalIDs(t testing.TB) string {
	t.Helper()
	raw := s.whole(t)
	blocks := strings.Split(strings.TrimSuffix(raw, "\n\n"), "\n\n")
	id, found := strings.CutPrefix(blocks[len(blocks)-1], "id: ")
	if !found || len(id) != 16 {
		t.Fatalf("the stream sent\n%s\nwant an id at its end", raw)
	}
	return id
}

// bothWays runs a test on streams taken from net/http and on those left to it.
func bothWays(t *testing.T, test func(t *testing.T, env string)) {
	for _, env := range []string{"SSE_HIJACK=on", "SSE_HIJACK=off"} {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			test(t, env)
		})
	}
}

func TestAPISeveral(t *testing.T) { overBoth(t, testAPISeveral) }

func testAPISeveral(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := newDatabase(t)
		i := serve(t, db.Serve, env)
		i.waitReady(t, "up")
		for n := range 3 {
			db.insert(t, "status, progress", fmt.Sprintf("'running', %d", n+1))
		}
		s := i.open(t, severalPath+"?ids=3,1,2,3", alice(t))
		for _, n := range []int{3, 1, 2} {
			s.wantEvent(t, fmt.Sprintf(`{"audit_id":%d,"status":"running","progress":%d}`, n, n))
		}
		if raw := s.raw.String(); !strings.HasPrefix(raw, ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: ") || strings.Count(raw, "retry:") != 1 {
			t.Errorf("the stream began with\n%s", raw)
		}
		db.sql(t, "update audits set progress = 50 where id = 2")
		s.wantEvent(t, `{"audit_id":2,"status":"running","progress":50}`)
		db.sql(t, "update audits set status = 'completed', progress = 100 where id = 3")
		s.wantEvent(t, `{"audit_id":3,"status":"completed","progress":100}`)
		early := i.open(t, severalPath+"?ids=3,1,2", alice(t))
		first := early.next(t)
		early.cancel()
		db.sql(t, "update audits set status = 'failed', error = 'boom' where id = 1")
		s.wantEvent(t, `{"audit_id":1,"status":"failed","progress":1,"error":"boom"}`)
		db.sql(t, "update audits set status = 'completed' where id = 2")
		s.wantEvent(t, `{"audit_id":2,"status":"completed","progress":50}`)
		end := s.severalIDs(t)

		// Who saw all ends is told to stay away; who saw one of them is told of all.
		if got := i.ask(t, "GET", severalPath+"?ids=1,2,3", "Authorization", "Bearer "+alice(t), "Last-Event-ID", end); got.Status != 204 {
			t.Errorf("status %d, want 204", got.Status)
		}
		again := i.open(t, severalPath+"?ids=1,2,3", alice(t), "Last-Event-ID", first.LastEventID)
		if got := again.severalIDs(t); got != end {
			t.Errorf("the end's id is %s, then %s", end, got)
		}
		if got := strings.Count(again.raw.String(), `"audit_id"`); got != 3 {
			t.Errorf("%d events, want 3:\n%s", got, again.raw.String())
		}
	})
}

func TestAPISeveralRefusals(t *testing.T) { overBoth(t, testAPISeveralRefusals) }

func testAPISeveralRefusals(t *testing.T) {
	db := newDatabase(t)
	i := serve(t, db.Serve)
	db.insert(t, "", "")
	db.sql(t, "insert into audits (url, user_id) values ('https://example.com', 'bob')")
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
		i.ask(t, "GET", severalPath+query, "Authorization", "Bearer "+alice(t)).wantRefusal(t, want.status, want.body, "")
	}
	i.ask(t, "GET", severalPath+"?ids=1").wantRefusal(t, 401, missingToken, missingChallenge)
	if got := i.ask(t, "POST", severalPath+"?ids=1", "Authorization", "Bearer "+alice(t)); got.Status != 405 {
		t.Errorf("POST: %d, want 405", got.Status)
	}
	s := i.open(t, severalPath+"?ids="+hundred, alice(t))
	s.wantEvent(t, `{"audit_id":1,"status":"pending","progress":0}`)
}

// A stream of several counts as one; it ends when one of its audits may not be shown any more.
func TestAPISeveralLimitsAndEnds(t *testing.T) { overBoth(t, testAPISeveralLimitsAndEnds) }

func testAPISeveralLimitsAndEnds(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := newDatabase(t)
		i := serve(t, db.Serve, env, "SSE_MAX_STREAMS_PER_USER=2")
		i.waitReady(t, "up")
		db.insert(t, "", "")
		db.insert(t, "", "")
		one, two := i.open(t, severalPath+"?ids=1,2", alice(t)), i.open(t, severalPath+"?ids=2,1", alice(t))
		for _, s := range []*stream{one, two} {
			s.next(t)
			s.next(t)
		}
		withRandomRetry(t, i.open(t, severalPath, alice(t)).whole(t), tooMany)
		db.sql(t, "update audits set user_id = 'bob', message = 'for bob alone' where id = 1")
		for _, s := range []*stream{one, two} {
			s.wantEvent(t, crossUser)
			s.ended(t)
		}
	})
}

func TestAPISeveralOfTheUser(t *testing.T) { overBoth(t, testAPISeveralOfTheUser) }

func testAPISeveralOfTheUser(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := newDatabase(t)
		i := serve(t, db.Serve, env, "SSE_HEARTBEAT_SECONDS=1")
		i.waitReady(t, "up")
		user := token(t, jwt.MapClaims{"sub": "alice", "email": "Alice@example.com"})
		none := i.open(t, severalPath, token(t, jwt.MapClaims{"sub": "nobody"}))
		none.wantSoFar(t, ": heartbeat every 1 s\n\nretry: 5000\n\n: heartbeat\n\n")
		db.insert(t, "status", "'running'")
		db.insert(t, "status", "'completed'")
		db.sql(t, "insert into audits (url, user_id) values ('https://example.com', 'bob')")
		db.sql(t, "insert into audits (url, user_email, status) values ('https://example.com', 'aLICE@example.com', 'running')")

		s := i.open(t, severalPath, user)
		s.wantEvent(t, `{"audit_id":1,"status":"running","progress":0}`)
		s.wantEvent(t, `{"audit_id":4,"status":"running","progress":0}`)
		db.insert(t, "progress", "7") // begins later
		s.wantEvent(t, `{"audit_id":5,"status":"pending","progress":7}`)
		db.sql(t, "update audits set progress = 50 where id = 3") // bob's
		db.sql(t, "delete from audits where id = 4")
		db.sql(t, "update audits set status = 'completed' where id = 1")
		s.wantEvent(t, `{"audit_id":1,"status":"completed","progress":0}`)
		db.sql(t, "update audits set status = 'running', progress = 1 where id = 2") // runs again
		s.wantEvent(t, `{"audit_id":2,"status":"running","progress":1}`)
		db.sql(t, "update audits set status = 'failed'")
		for range 2 {
			if p := s.nextProgress(t); p.AuditID != 2 && p.AuditID != 5 || p.Status != "failed" {
				t.Errorf("event %+v, want the ends of 2 and 5", p)
			}
		}
		s.wantSoFar(t, s.raw.String()+": heartbeat\n\n") // it goes on
	})
}
