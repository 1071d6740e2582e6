package faults

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"auditstream/integration/harness"
)

// hostile is a request, with ROUTE for a route's path, that may be answered as said.
type hostile struct {
	name, request string
	allowed       answers
}

const marker = "echo-7f3a9c" // in whatever a request may hold; no answer repeats it

func hostileRequests(token string) (all []hostile) {
	const host = "Host: localhost\r\n"
	add := func(allowed answers, name, request string) { all = append(all, hostile{name, request, allowed}) }
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "OPTIONS", "HEAD", "get", "Get", "PROPFIND", marker, "PRI", strings.Repeat("M", 5000)} {
		add(ours|served, "method "+method[:min(len(method), 12)], method+" ROUTE HTTP/1.1\r\n"+host+"\r\n")
	}
	add(gos, "method that is none", "G@T ROUTE HTTP/1.1\r\n"+host+"\r\n")
	add(gos, "empty method", " ROUTE HTTP/1.1\r\n"+host+"\r\n")
	for name, body := range map[string]string{
		"body":                     "Content-Length: 11\r\n\r\n" + marker,
		"body that stops short":    "Content-Length: 1000\r\n\r\n" + marker,
		"huge body":                "Content-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1_000_000),
		"chunked body":             "Transfer-Encoding: chunked\r\n\r\nb\r\n" + marker + "\r\n0\r\n\r\n",
		"chunked body that is not": "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + marker + "\r\n",
		"body that it announces":   "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n" + marker,
	} {
		allowed := ours | served
		if name == "huge body" {
			allowed |= closed // it was answered, but the client was still sending
		}
		add(allowed, name, "GET ROUTE HTTP/1.1\r\n"+host+body)
	}
	for name, headers := range map[string]string{
		"many headers":     host + strings.Repeat("X-A: 1\r\n", 1000),
		"odd names":        host + "X_y: 1\r\n!#$%&'*+-.^_`|~: 1\r\n",
		"repeated":         host + strings.Repeat("Accept: */*\r\nRange: bytes=0-1\r\nCookie: a=b\r\nLast-Event-ID: 1\r\nIf-None-Match: \"x\"\r\n", 20),
		"markup":           host + "Last-Event-ID: <script>" + marker + "</script>\r\nReferer: " + marker + "\r\nUser-Agent: " + marker + "\r\nOrigin: https://" + marker + "\r\n",
		"beyond ASCII":     host + "Last-Event-ID: \xff\xfe" + marker + "\r\n",
		"upgrade":          host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: eA==\r\n",
		"forwarded":        host + "X-Forwarded-Host: " + marker + "\r\nX-Forwarded-Prefix: /" + marker + "\r\nX-Original-URL: /metrics\r\nX-HTTP-Method-Override: DELETE\r\n",
		"odd Host":         "Host: " + marker + ":99999\r\n",
		"empty Host":       "Host:\r\n",
		"odd range":        host + "Range: bytes=-1,0-,9-1\r\nIf-Range: x\r\n",
		"odd encoding":     host + "Accept-Encoding: gzip;q=x, \x01br\r\n",
		"bad token":        host + "Authorization: Bearer " + marker + "\r\n",
		"odd scheme":       host + "Authorization: " + marker + " x\r\n",
		"trailer and gzip": host + "TE: trailers, gzip\r\nTrailer: Host\r\n",
	} {
		allowed := ours | served
		if name == "odd encoding" {
			allowed = gos
		}
		add(allowed, name, "GET ROUTE HTTP/1.1\r\n"+headers+"\r\n")
	}
	for name, headers := range map[string]string{
		"no Host": "", "two Hosts": host + "Host: " + marker + "\r\n", "malformed Host": "Host: a b\r\n",
		"header too long": host + "X-A: " + strings.Repeat("a", 64<<10) + "\r\n",
		"blank in a name": host + "X A: 1\r\n", "blank before the colon": host + "Content-Length : 5\r\n", "no colon": host + marker + "\r\n", "no name": host + ": x\r\n",
		"NUL in a value": host + "X-A: a\x00b\r\n", "continuation": host + " X-A: folded\r\n",
		"length that is no number": host + "Content-Length: " + marker + "\r\n", "negative length": host + "Content-Length: -1\r\n", "signed length": host + "Content-Length: +1\r\n",
		"length beyond 63 bits": host + "Content-Length: 9223372036854775808\r\n", "two lengths": host + "Content-Length: 5\r\nContent-Length: 6\r\n",
		"lengths in a list": host + "Content-Length: 5, 6\r\n", "odd encoding of the body": host + "Transfer-Encoding: " + marker + "\r\n",
		"encodings in a list": host + "Transfer-Encoding: gzip, chunked\r\n", "identity": host + "Transfer-Encoding: identity\r\n",
		"encoding behind a tab": host + "Transfer-Encoding: \x0bchunked\r\n", "two encodings": host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"unknown expectation": host + "Expect: " + marker + "\r\n",
	} {
		add(gos|closed, name, "GET ROUTE HTTP/1.1\r\n"+headers+"\r\n")
	}
	add(ours|served, "HTTP/1.0", "GET ROUTE HTTP/1.0\r\n\r\n")
	add(ours|served, "HTTP/1.0, kept alive", "GET ROUTE HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	add(ours|served, "absolute form", "GET http://"+marker+"ROUTE HTTP/1.1\r\n"+host+"\r\n")
	add(ours|gos, "absolute form of another scheme", "GET ftp://"+marker+":x@h/ROUTE HTTP/1.1\r\n"+host+"\r\n")
	add(ours|served, "bare line feeds", "GET ROUTE HTTP/1.1\nHost: localhost\n\n")
	for _, version := range []string{"HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/1", "HTTP/1.1.1", "http/1.1", "HTTP/1.1 " + marker, ""} {
		add(gos|ours|served|closed, "version "+version, "GET ROUTE "+version+"\r\n"+host+"\r\n")
	}
	add(ours, "HTTP/2 over plain text", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	add(gos|closed, "TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"+strings.Repeat("\x07", 160)+"\r\n\r\n")
	add(gos|closed, "not HTTP", "\x00\x01\x02"+marker+"\r\n\r\n")
	add(gos|closed, "blank lines alone", "\r\n\r\n\r\n\r\n")
	add(gos|closed, "nothing", "")
	add(gos|closed, "a request that stops", "GET ROUTE HTTP/1.1\r\nHost: loc")
	add(ours, "OPTIONS of everything", "OPTIONS * HTTP/1.1\r\n"+host+"\r\n")
	add(gos|ours, "star", "GET * HTTP/1.1\r\n"+host+"\r\n")
	add(gos|ours, "authority", "CONNECT "+marker+":443 HTTP/1.1\r\n"+host+"\r\n")

	for _, target := range []string{
		"ROUTE/", "ROUTE//", "/ROUTE", "//ROUTE", "/.ROUTE", "/..ROUTE", "/../../../etc/passwd", "/x/..ROUTE", "/%2e%2eROUTE", "/..%2fROUTE", "/%2FROUTE", "ROUTE%2F", "ROUTE%2f..",
		"ROUTE;a=b", "ROUTE;", "ROUTE%00", "ROUTE%0d%0aSet-Cookie:%20" + marker, "ROUTE%20", "ROUTE.", "ROUTE.json", "ROUTE?" + strings.Repeat("a=b&", 500), "ROUTE?a=%zz&b;c",
		"ROUTE?token=" + marker, "ROUTE?last_event_id=" + marker + "&last_event_id=x", "ROUTE#" + marker, "ROUTE%23", "ROUTE\\", "/" + marker, "/" + strings.Repeat("a/", 4000), "/\u00e9\u200b", "/%ff%fe", "/%c0%af",
		"/<script>" + marker, "/{audit_id}", "/api/v1/audits/1/status/../../../../metrics", "/api/v1/audits/%31/status", "/api%2fv1%2faudits%2f1%2fstatus", "/api/v1/audits//status", "/api/v1/sse/audits/1", "/favicon.ico", "/robots.txt",
		"/server-status", "/.env", "/.git/config", "/debug/vars", "/debug/pprof/" + marker, "/debug/pprof/..%2f..%2fetc%2fpasswd",
	} {
		add(ours|served, "path "+target[:min(len(target), 60)], "GET "+target+" HTTP/1.1\r\n"+host+"\r\n")
	}
	for _, target := range []string{"ROUTE%", "ROUTE%z1", "ROUTE\x00", "ROUTE\x7f", "ROUTE " + marker, "/" + strings.Repeat("a", 64<<10), marker, "?", "", ":80", "://", "[::1"} {
		add(gos|ours|closed, "target "+target[:min(len(target), 20)], "GET "+target+" HTTP/1.1\r\n"+host+"\r\n")
	}
	for _, id := range []string{
		"0", "-0", "-1", "+1", "01", "00", "1e3", "1.0", "1.", ".1", "0x1", "0b1", "1_0", "1,2", "9223372036854775808", "18446744073709551617", strings.Repeat("9", 5000), "%D9%A1", "%EF%BC%91", "%C2%B2",
		"%20", "%201", "1%20", "%09", "1%0A", "%00", "1%00", "null", "NaN", "true", "''", "1'--", "1%2F2", "%2E%2E", "*", marker, "<b>", "%F0%9F%98%80",
	} {
		for _, path := range []string{harness.StreamPath(id), harness.StatusPath(id)} {
			add(ours, "id "+path[:min(len(path), 60)], "GET "+path+" HTTP/1.1\r\n"+host+"Authorization: Bearer "+token+"\r\n\r\n")
		}
	}
	return all
}

func TestHostileRequests(t *testing.T) {
	t.Parallel()
	_, i := harness.ServeFirst(t)
	before := i.Metric(t, "go_goroutines")
	requests := hostileRequests(harness.AliceToken(t))
	type question struct {
		hostile
		route
	}
	var all []question
	asked := make(map[string]bool)
	for _, h := range requests {
		for _, r := range routes(t, i) {
			q := question{h, r}
			q.request = strings.ReplaceAll(h.request, "ROUTE", r.path)
			slow := r.path == "/debug/pprof/profile" || r.path == "/debug/pprof/trace"
			if key := address(i, r) + q.request; !asked[key] && !(slow && h.allowed&served != 0 && !strings.HasPrefix(h.name, "method P")) {
				asked[key] = true
				all = append(all, q)
			}
		}
	}
	questions := make(chan question)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for q := range questions {
				resp, answer, err := raw(address(i, q.route), q.request)
				if err == nil {
					err = wantAnswer(resp, answer, q.allowed, marker)
				}
				if err != nil {
					t.Errorf("%s of %s (admin %t): %v", q.name, q.path, q.admin, err)
				}
			}
		})
	}
	for _, q := range all {
		questions <- q
	}
	close(questions)
	group.Wait()
	t.Logf("%d requests", len(all))

	if log := i.Log.String(); strings.Contains(log, "panic") || strings.Contains(log, marker) {
		t.Error("the log has a panic, or repeats what was sent")
	}
	i.WaitMetric(t, "go_goroutines", harness.AtMost(before+5))
	i.Watch(t, "1", harness.AliceToken(t)).WantSoFar(t, harness.FirstEvent)
}

// What a client and a proxy in front read differently must not become a second request: each pair is answered once, and
// the connection is closed.
func TestHostileRequestsAreNotSmuggled(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve)
	const smuggled = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, head := range map[string]string{
		"a length and chunks":      fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 5+len(smuggled)),
		"chunks and a length":      "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		"a body that is ignored":   fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smuggled)),
		"a length of 0 and chunks": "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunked, obfuscated":      "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"chunked, in two lines":    "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"two lengths":              "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
	} {
		for _, method := range []string{"GET", "POST"} {
			for _, r := range routes(t, i) {
				if r.path == "/debug/pprof/profile" || r.path == "/debug/pprof/trace" {
					continue
				}
				_, all, err := raw(address(i, r), method+" "+r.path+" HTTP/1.1\r\nHost: localhost\r\n"+head+smuggled)
				if got := len(regexp.MustCompile(`HTTP/1\.1 \d{3} `).FindAllString(all, -1)); err != nil || got != 1 || strings.Contains(all, `{"status":"ok"}`) && r.path != "/healthz" {
					t.Errorf("%s, %s %s: %d answers, %v: %.400q", name, method, r.path, got, err, all)
				}
			}
		}
	}
}
