package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/chromedp/chromedp"
	"github.com/golang-jwt/jwt/v5"
)

// TestClientBrowserRestart is a page of another origin than the API, whose server is stopped and started again.
func TestClientBrowserRestart(t *testing.T) {
	t.Parallel()
	db, s, first, id := siteWithAudit(t, "SSE_RETRY_MS=200")
	proxy := pgtest.Proxy(t, strings.TrimPrefix(first.URL, "http://"))

	p := openPage(t, s.URL)
	p.watching(t, id, fmt.Sprintf("base: 'http://%s', token: async () => { seen.asked++; return %q; },", proxy.Addr(), harness.AliceToken(t)))
	p.waitProgress(t, 10)
	p.wait(t, "a live stream", "seen.states.join() === 'connecting,live' && seen.asked === 1")

	first.Stop(t)
	p.wait(t, "failures", "seen.states.includes('offline')")
	db.SQL(t, "update audits set progress = 20") // while nobody listens
	second := harness.Serve(t, db.Serve, "SSE_RETRY_MS=200", "CORS_ALLOWED_ORIGINS="+s.URL)
	proxy.SetTarget(strings.TrimPrefix(second.URL, "http://"))
	p.waitProgress(t, 20)
	p.wait(t, "a live stream again, with a token that was asked for again", "seen.states.at(-1) === 'live' && seen.asked > 1")

	completes(t, db, p)
}

// TestClientBrowserBadGateway puts a proxy in between that answers 502 while the server is replaced: watchAudit comes back,
// and the browser's own EventSource does not.
func TestClientBrowserBadGateway(t *testing.T) {
	t.Parallel()
	env := []string{"SSE_RETRY_MS=200", "SSE_AUTH_COOKIE=session"}
	db, s, first, id := siteWithAudit(t, env...)

	p := openPage(t, s.URL)
	p.eval(t, fmt.Sprintf("document.cookie = 'session=%s; path=/'; window.native = new EventSource('%s');", harness.AliceToken(t), harness.StreamPath(id)))
	p.wait(t, "the native stream", "native.readyState === EventSource.OPEN")
	p.watching(t, id, "") // authenticated by the cookie, too
	p.waitProgress(t, 10)

	first.Stop(t)
	p.wait(t, "502", "seen.errors.includes('HTTP status 502') && seen.states.at(-1) === 'offline'")
	p.wait(t, "the native one's end", "native.readyState === EventSource.CLOSED")
	db.SQL(t, "update audits set progress = 20")
	second := harness.Serve(t, db.Serve, env...)
	s.setTarget(t, second.URL)
	p.waitProgress(t, 20)
	p.wait(t, "a live stream again", "seen.states.at(-1) === 'live'")
	db.SQL(t, "update audits set status = 'failed', error = 'no'")
	p.wantDone(t)
}

// TestClientBrowserExpiredToken lets a token expire under an open stream.
func TestClientBrowserExpiredToken(t *testing.T) {
	t.Parallel()
	db, s, _, id := siteWithAudit(t)

	p := openPage(t, s.URL)
	short := harness.Token(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(20 * time.Second).Unix()})
	p.watching(t, id, fmt.Sprintf("token: async () => [%q, %q][Math.min(seen.asked++, 1)],", short, harness.AliceToken(t)))
	p.waitProgress(t, 10)
	p.wait(t, "the end of the first token", "seen.errors.join() === 'Token expired'")
	p.wait(t, "a live stream with the second", "seen.states.join() === 'connecting,live,connecting,live' && seen.asked === 2")
	if one := s.next(t); one.authorization != "Bearer "+short || one.lastEventID != "" {
		t.Errorf("the first request was %+v", one)
	}
	completes(t, db, p)
	if two := s.next(t); two.authorization == "Bearer "+short || two.lastEventID == "" {
		t.Errorf("the second request was %+v, want another token and the last event's id", two)
	}
}

// TestClientBrowserBufferingProxy holds streams back: the client polls, and returns to the stream when it can.
func TestClientBrowserBufferingProxy(t *testing.T) {
	t.Parallel()
	db, s, _, id := siteWithAudit(t, "SSE_HEARTBEAT_SECONDS=1")

	s.held.Store(true)
	p := openPage(t, s.URL)
	p.watching(t, id, fmt.Sprintf("token: %q, heartbeat: 4000,", harness.AliceToken(t)))
	p.waitProgress(t, 10)
	p.wait(t, "polling", "seen.states.at(-1) === 'polling' && !seen.states.includes('live')")
	db.SQL(t, "update audits set progress = 20")
	p.waitProgress(t, 20)
	s.held.Store(false)
	p.wait(t, "a live stream", "seen.states.at(-1) === 'live'")
	completes(t, db, p)
}

// TestClientBrowserNativeStopsAt204 is a bare EventSource with the cookie, whose page never closes it.
func TestClientBrowserNativeStopsAt204(t *testing.T) {
	t.Parallel()
	db, s, _, one := siteWithAudit(t, "SSE_RETRY_MS=100", "SSE_AUTH_COOKIE=session")
	two := db.Insert(t, "status, progress", "'running', 10")

	for _, path := range []string{harness.StreamPath(one), "/api/v1/sse/audits/progress?ids=" + one + "," + two} {
		db.SQL(t, "update audits set status = 'running', progress = 10")
		p := openPage(t, s.URL)
		p.eval(t, fmt.Sprintf(`document.cookie = 'session=%s; path=/'; window.data = [];
			window.native = new EventSource('%s'); native.onmessage = (event) => { data.push(event.data); };`, harness.AliceToken(t), path))
		p.wait(t, "the first event", "data.length >= 1")
		db.SQL(t, "update audits set status = 'completed', progress = 100")
		p.wait(t, "that it stops by itself", "native.readyState === EventSource.CLOSED")
		if first := s.next(t); first.status != 200 || first.authorization != "" || first.lastEventID != "" {
			t.Errorf("%s: the first request was %+v", path, first)
		}
		if last := s.next(t); last.status != 204 || last.lastEventID == "" {
			t.Errorf("%s: the second request was %+v, want it answered 204", path, last)
		}
		p.wait(t, "every event once", fmt.Sprintf(`data.length === %d && data.at(-1).includes('"status":"completed"')`, 2+2*strings.Count(path, ",")))
	}
}

// TestClientBrowserSevenTabs opens one tab more than a browser has connections for a server without HTTP/2. Those that
// nobody looks at give theirs to the one that waits, and have it again when they are looked at.
func TestClientBrowserSevenTabs(t *testing.T) {
	t.Parallel()
	db, s, i, id := siteWithAudit(t)

	tabs := []*page{openPage(t, s.URL)}
	for len(tabs) < 7 {
		tabs = append(tabs, tabs[0].tab(t, s.URL))
	}
	seventh := tabs[6]
	for _, p := range tabs {
		p.watching(t, id, fmt.Sprintf("base: %q, token: %q,", i.URL, harness.AliceToken(t)))
		if p != seventh {
			p.wait(t, "a live stream", "window.seen?.states.at(-1) === 'live'")
		}
	}
	seventh.wait(t, "the seventh tab's stream", "document.visibilityState === 'visible' && window.seen?.states.at(-1) === 'live'")
	tabs[0].wait(t, "the first tab to be hidden", "document.visibilityState === 'hidden' && seen.states.at(-1) === 'connecting'")
	db.SQL(t, "update audits set progress = 20")
	seventh.waitProgress(t, 20)
	tabs[0].front(t)
	tabs[0].waitProgress(t, 20)
	tabs[0].wait(t, "the first tab's stream", "seen.states.at(-1) === 'live'")
	db.SQL(t, "update audits set status = 'completed', progress = 100")
	for _, p := range tabs {
		p.front(t)
		p.waitProgress(t, 100)
		p.wantDone(t)
	}
}

// TestClientBrowserSevenTabsHTTP2 has all of them live at once, since they share a connection.
func TestClientBrowserSevenTabsHTTP2(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	s := newSite(t)
	cert, key, _ := harness.SelfSigned(t)
	i := harness.Serve(t, db.Serve, "CORS_ALLOWED_ORIGINS="+s.URL, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key)
	id := db.Insert(t, "status, progress", "'running', 10")

	tabs := []*page{openPage(t, s.URL, chromedp.IgnoreCertErrors)}
	for len(tabs) < 7 {
		tabs = append(tabs, tabs[0].tab(t, s.URL))
	}
	for _, p := range tabs {
		p.watching(t, id, fmt.Sprintf("base: %q, token: %q, background: true,", i.URL, harness.AliceToken(t)))
	}
	for _, p := range tabs {
		p.wait(t, "a live stream", "window.seen?.states.at(-1) === 'live'")
	}
	i.WantMetric(t, "auditstream_streams_open", 7)
	completes(t, db, tabs...)
}
