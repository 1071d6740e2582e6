package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// A role with nothing but CONNECT forges notifications of every kind. What clients see is what was committed, and the
// database is read as often as the safety net and the batches allow, not once for each.
func TestSecurityForgedNotificationsShowNothing(t *testing.T) {
	harness.OverHTTP1And2(t, testSecurityForgedNotificationsShowNothing)
}

func testSecurityForgedNotificationsShowNothing(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	bobs := db.SQL(t, "insert into audits (url, user_id, status, progress) values ('https://example.com', 'bob', 'running', 1) returning id")
	i := harness.ServeReady(t, db.Serve)
	hers, his := i.Watch(t, "1", harness.AliceToken(t)), i.Watch(t, bobs, harness.Token(t, jwt.MapClaims{"sub": "bob"}))
	hers.Next(t)
	his.Next(t)

	const reads = `auditstream_read_duration_seconds_count{result="ok"}`
	before := i.Metric(t, reads)
	forger := pgtest.Connect(t, db.Serve)
	const forged = 5000
	for _, payload := range []string{
		`'1'`, `'` + bobs + `'`, `'*'`, `''`, `'!'`, `'!' || g`, `'-1'`, `'0'`, `'1 or 1=1'`, `'{"audit_id":1,"status":"completed"}'`, `repeat('9', 7999)`,
		`repeat('1', 19)`, `g::text`, `E'1\n\ndata: {}'`, `'9223372036854775808'`,
	} {
		harness.Exec(t, forger, fmt.Sprintf(`select pg_notify('auditstream', %s) from generate_series(1, %d) g`, payload, forged))
	}
	harness.Exec(t, forger, `select pg_notify('auditstream_other', '1')`)
	// Notifications come in order: when this change is seen, all forged ones have been taken in.
	db.SQL(t, "update audits set progress = 90")
	for _, s := range []*harness.Stream{hers, his} {
		s.WantProgress(t, 90)
	}
	// Of each statement's notifications PostgreSQL itself folds the equal ones; what differs is not watched.
	if got := i.Metric(t, reads) - before; got > 100 {
		t.Errorf("forged notifications caused %v reads, want a handful", got)
	}
}

// A token is good for reading what its owner's audits show, and for nothing else.
func TestSecurityStolenTokenOnlyReads(t *testing.T) {
	harness.OverHTTP1And2(t, testSecurityStolenTokenOnlyReads)
}

func testSecurityStolenTokenOnlyReads(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	// Completed, so that a stream which should not be there at least ends.
	bobs := db.SQL(t, "insert into audits (url, user_id, status) values ('https://example.com', 'bob', 'completed') returning id")
	i := harness.Serve(t, db.Serve)
	const contents = "select string_agg(a::text, ',' order by id) from audits a"
	before := db.SQL(t, contents)
	stolen := []string{"Authorization", "Bearer " + harness.AliceToken(t)}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} {
		for _, path := range []string{harness.StreamPath("1"), harness.StatusPath("1"), "/healthz", "/openapi.yaml"} {
			i.Ask(t, method, path, stolen...).WantStatus(t, http.StatusMethodNotAllowed)
		}
	}
	for _, path := range []string{harness.StreamPath(bobs), harness.StatusPath(bobs)} {
		i.Ask(t, "GET", path, stolen...).WantRefusal(t, http.StatusForbidden, harness.CrossUser, "")
	}
	(&harness.Instance{URL: i.Admin}).Ask(t, "GET", harness.StatusPath("1"), stolen...).WantStatus(t, http.StatusNotFound)
	db.WantSQL(t, contents, before)
}

// Clients that send a byte now and then: each is answered, or hung up on, within the time that reading may take.
func TestHostileTrickleIsCutOff(t *testing.T) {
	t.Parallel()
	i := harness.Serve(t, harness.NewFirstAuditDatabase(t).Serve)
	closed := map[string]func(testing.TB, string) (time.Duration, string){}
	for _, r := range routes(t, i) {
		closed["headers of "+r.path] = harness.Trickle(t, address(i, r), "GET "+r.path+" HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "a")
		if r.path != "/debug/pprof/symbol" { // which reads the body
			closed["body of "+r.path] = harness.Trickle(t, address(i, r), "POST "+r.path+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", "a")
		}
	}
	for what, closed := range closed {
		took, answer := closed(t, what)
		if strings.HasPrefix(what, "body") && !strings.Contains(answer, `{"error":"`) {
			t.Errorf("%s: answer %q after %v, want the contract's JSON", what, answer, took)
		}
		if strings.HasPrefix(what, "headers") && answer != "" {
			t.Errorf("%s: answer %q, want a close", what, answer)
		}
	}
	i.WaitMetric(t, "go_goroutines", harness.AtMost(60))
}
