package integration

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

	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// A role with nothing but CONNECT forges notifications of every kind. What clients see is what was committed, and the
// database is read as often as the safety net and the batches allow, not once for each.
func TestSecurityForgedNotificationsShowNothing(t *testing.T) {
	overBoth(t, testSecurityForgedNotificationsShowNothing)
}

func testSecurityForgedNotificationsShowNothing(t *testing.T) {
	db := newFirstAudit(t)
	bobs := db.sql(t, "insert into audits (url, user_id, status, progress) values ('https://example.com', 'bob', 'running', 1) returning id")
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	hers, his := i.watch(t, "1", alice(t)), i.watch(t, bobs, token(t, jwt.MapClaims{"sub": "bob"}))
	hers.next(t)
	his.next(t)

	const reads = `auditstream_read_duration_seconds_count{result="ok"}`
	before := i.metric(t, reads)
	forger := pgtest.Connect(t, db.Serve)
	const forged = 5000
	for _, payload := range []string{
		`'1'`, `'` + bobs + `'`, `'*'`, `''`, `'!'`, `'!' || g`, `'-1'`, `'0'`, `'1 or 1=1'`, `'{"audit_id":1,"status":"completed"}'`, `repeat('9', 7999)`,
		`repeat('1', 19)`, `g::text`, `E'1\n\ndata: {}'`, `'9223372036854775808'`,
	} {
		exec1(t, forger, fmt.Sprintf(`select pg_notify('auditstream', %s) from generate_series(1, %d) g`, payload, forged))
	}
	exec1(t, forger, `select pg_notify('auditstream_other', '1')`)
	// Notifications come in order: when this change is seen, all forged ones have been taken in.
	db.sql(t, "update audits set progress = 90")
	for name, s := range map[string]*stream{"alice": hers, "bob": his} {
		if got := s.nextProgress(t); got.Progress != 90 {
			t.Errorf("%s was shown %+v, want what was committed and nothing before it", name, got)
		}
	}
	// Of each statement's notifications PostgreSQL itself folds the equal ones; what differs is not watched.
	if got := i.metric(t, reads) - before; got > 100 {
		t.Errorf("forged notifications caused %v reads, want a handful", got)
	}
}

// A token is good for reading what its owner's audits show, and for nothing else.
func TestSecurityStolenTokenOnlyReads(t *testing.T) { overBoth(t, testSecurityStolenTokenOnlyReads) }

func testSecurityStolenTokenOnlyReads(t *testing.T) {
	db := newFirstAudit(t)
	// Completed, so that a stream which should not be there at least ends.
	bobs := db.sql(t, "insert into audits (url, user_id, status) values ('https://example.com', 'bob', 'completed') returning id")
	i := serve(t, db.Serve)
	const contents = "select string_agg(a::text, ',' order by id) from audits a"
	before := db.sql(t, contents)
	stolen := []string{"Authorization", "Bearer " + alice(t)}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} {
		for _, path := range []string{streamPath("1"), statusPath("1"), "/healthz", "/openapi.yaml"} {
			if got := i.ask(t, method, path, stolen...); got.Status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want 405", method, path, got.Status)
			}
		}
	}
	for _, path := range []string{streamPath(bobs), statusPath(bobs)} {
		i.ask(t, "GET", path, stolen...).wantRefusal(t, http.StatusForbidden, crossUser, "")
	}
	if got := (&instance{URL: i.Admin}).ask(t, "GET", statusPath("1"), stolen...); got.Status != http.StatusNotFound {
		t.Errorf("the operators' address: %d, want 404", got.Status)
	}
	if after := db.sql(t, contents); after != before {
		t.Errorf("the table changed:\n%s\n%s", before, after)
	}
}

// What a client may send before anybody knows who it is.
func TestSecurityRequestsAreBounded(t *testing.T) {
	t.Parallel()
	i := serve(t, newFirstAudit(t).Serve)
	t.Run("headers", func(t *testing.T) {
		t.Parallel()
		if got := i.ask(t, "GET", streamPath("1"), "X-Large", strings.Repeat("x", 32<<10)); got.Status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("32 KiB of headers: %d, want 431", got.Status)
		}
	})
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		i.ask(t, "GET", streamPath("1"), "Authorization", "Bearer "+strings.Repeat("x", 9<<10)).
			wantRefusal(t, http.StatusUnauthorized, invalidToken, invalidChallenge)
	})
	for name, request := range map[string]string{
		"a request that never ends":   "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"a connection that is silent": "",
		"a body that never comes":     "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(i.URL)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("still connected after %v", patience)
			}
		})
	}
}
