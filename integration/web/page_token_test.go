package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestPageAsksForAToken is the page of serve --ui, behind a proxy: nothing is shown without a token, and all of its
// owner's audits are with one.
func TestPageAsksForAToken(t *testing.T) {
	t.Parallel()
	db, i := harness.ServeNew(t, "--ui", "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	target, err := url.Parse(i.URL)
	harness.NoError(t, err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	t.Cleanup(proxy.Close)
	p := openPage(t, proxy.URL)

	signIn := func(text string) {
		t.Helper()
		p.wait(t, "the box", `document.querySelector('#signin').checkVisibility() && document.activeElement.id === 'token'`)
		p.eval(t, `document.querySelector('#token').value = ''`)
		p.do(t, chromedp.SendKeys(chromedp.CSS("#token"), text), chromedp.KeyEvent(kb.Enter))
	}
	refused := func(text string) {
		t.Helper()
		p.wait(t, text, fmt.Sprintf(`document.querySelector('#signin-error').checkVisibility() && document.querySelector('#signin-error').textContent.includes(%q)`, text))
	}
	signIn("not a token")
	refused("This is not a token")
	p.clean(t)
	wrong := strings.TrimSpace(harness.RunCommand(t, []string{"JWT_SECRET=another-secret-of-at-least-32-bytes!"}, "token", "--sub", "alice"))
	signIn(wrong)
	refused("The server refuses this token: Invalid authentication token.")
	p.screenshots(t, "refused")
	if got := p.json(t, `[sessionStorage.length, localStorage.length, document.cookie, location.href.includes('ey')]`); got != `[0,0,"",false]` {
		t.Errorf("after a refused token the browser keeps %s", got)
	}

	signIn("Bearer " + harness.AliceToken(t))
	p.wait(t, "who it is", `document.querySelector('#user').textContent === 'alice’s audits'`)
	p.wait(t, "that there is nothing", `document.querySelector('#empty').checkVisibility() && document.querySelector('#empty').textContent.startsWith('No audit of yours is in progress.')`)
	p.screenshots(t, "empty")

	id := db.Insert(t, "status, progress, message", "'running', 10, 'Analyzing pages...'")
	foreign := db.SQL(t, "insert into audits (url, user_id, status, progress) values ('https://example.com', 'bob', 'running', 5) returning id")
	row := `document.querySelector('.row[data-id="` + id + `"]')`
	p.wait(t, "the new audit", row+`?.querySelector('.percent').textContent === '10' && document.querySelector('#link').dataset.state === 'live'`)
	db.SQL(t, "update audits set progress = 60, message = 'Scoring...' where id = "+id)
	p.wait(t, "its change", row+`.querySelector('.stage').textContent === 'Scoring...'`)
	db.SQL(t, "update audits set message = '<img src=x onerror=alert(1)>', total_pages = 7 where id = "+id)
	p.wait(t, "text that stays text", row+`.querySelector('.stage').textContent === '<img src=x onerror=alert(1)>'`)
	p.wait(t, "events with the time between them", `/^\+[\d.]+ m?s$|^\+\d+:\d+$/.test(document.querySelector('#log li .since').textContent) && document.querySelector('#latency-title').textContent === 'Time between events'`)
	db.SQL(t, "update audits set status = 'completed', progress = 100, geo_score = 78.5, message = null where id = "+id)
	p.wait(t, "its end", row+`.dataset.status === 'completed' && `+row+`.querySelector('.outcome').textContent === 'score 78.5'
		&& `+row+`.closest('#ended') !== null`)
	if !p.is(t, `document.querySelector('.row[data-id="`+foreign+`"]') === null`) {
		t.Error("somebody else's audit is shown")
	}

	p.do(t, chromedp.Reload())
	next := db.Insert(t, "status, progress", "'running', 20")
	p.wait(t, "the token to outlast a reload", `document.querySelector('.row[data-id="`+next+`"]') !== null`)
	p.eval(t, `document.querySelector('#leave').click()`)
	p.wait(t, "everything to be forgotten", `document.querySelectorAll('.row').length === 0 && sessionStorage.length === 0
		&& !document.querySelector('#audits').checkVisibility() && document.querySelector('#signin').checkVisibility()`)
	for _, problem := range p.consoleProblems() {
		if !strings.Contains(problem, "401") { // the refused token
			t.Errorf("the console shows: %s", problem)
		}
	}
}

// TestPageIsAChoice: serve has no page unless it is asked for, and never what dev has more.
func TestPageIsAChoice(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	without, with := harness.Serve(t, db.Serve), harness.Serve(t, db.Serve, "SSE_UI=on")
	for _, path := range []string{"/", "/page.js", "/dev.json", "/dev/pulse"} {
		if status, body := without.Get(t, path); status != http.StatusNotFound {
			t.Errorf("GET %s: %d %s, want 404", path, status, body)
		}
	}
	if status, body := with.Get(t, "/"); status != http.StatusOK || !strings.Contains(body, `data-mode="token"`) {
		t.Errorf("GET / with SSE_UI=on: %d %s", status, body)
	}
	for _, path := range []string{"/dev.json", "/dev/pulse", "/dev/start", "/dev/fail", "/dev/kill-listener", "/dev/pause"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			with.Ask(t, method, path).WantStatus(t, http.StatusNotFound)
		}
	}
}
