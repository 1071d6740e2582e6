package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
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
	for name, s := range map[string]*harness.Stream{"alice": hers, "bob": his} {
		if got := s.NextProgress(t); got.Progress != 90 {
			t.Errorf("%s was shown %+v, want what was committed and nothing before it", name, got)
		}
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
			if got := i.Ask(t, method, path, stolen...); got.Status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want 405", method, path, got.Status)
			}
		}
	}
	for _, path := range []string{harness.StreamPath(bobs), harness.StatusPath(bobs)} {
		i.Ask(t, "GET", path, stolen...).WantRefusal(t, http.StatusForbidden, harness.CrossUser, "")
	}
	if got := (&harness.Instance{URL: i.Admin}).Ask(t, "GET", harness.StatusPath("1"), stolen...); got.Status != http.StatusNotFound {
		t.Errorf("the operators' address: %d, want 404", got.Status)
	}
	if after := db.SQL(t, contents); after != before {
		t.Errorf("the table changed:\n%s\n%s", before, after)
	}
}

// What a client may send before anybody knows who it is.
func TestSecurityRequestsAreBounded(t *testing.T) {
	t.Parallel()
	i := harness.Serve(t, harness.NewFirstAuditDatabase(t).Serve)
	t.Run("headers", func(t *testing.T) {
		t.Parallel()
		if got := i.Ask(t, "GET", harness.StreamPath("1"), "X-Large", strings.Repeat("x", 32<<10)); got.Status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("32 KiB of headers: %d, want 431", got.Status)
		}
	})
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		i.Ask(t, "GET", harness.StreamPath("1"), "Authorization", "Bearer "+strings.Repeat("x", 9<<10)).
			WantRefusal(t, http.StatusUnauthorized, harness.InvalidToken, harness.InvalidChallenge)
	})
	for name, request := range map[string]string{
		"a request that never ends":   "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"a connection that is silent": "",
		"a body that never comes":     "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(i.URL)
			harness.NoError(t, err)
			conn, err := net.Dial("tcp", u.Host)
			harness.NoError(t, err)
			defer conn.Close()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			harness.NoError(t, conn.SetReadDeadline(time.Now().Add(harness.Patience)))
			if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("still connected after %v", harness.Patience)
			}
		})
	}
}
