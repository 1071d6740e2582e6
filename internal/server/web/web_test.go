package web

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"auditstream/internal/testkit"

	"github.com/getkin/kin-openapi/openapi3"
)

var testDev = Dev{Audits: []DevAudit{{ID: 3, Site: "https://by-hand.example"}, {ID: 4}}, Token: "secret-token", User: "dev", ByHand: 3, SQL: `psql -c "update <audits>"`}

// testPage is a development server's, whose actions count how often they are called.
func testPage(called *atomic.Int64) http.Handler {
	return Page(Options{
		Dev:   func() Dev { return testDev },
		Pulse: func(context.Context) any { return "secret-pulse" },
		Actions: map[string]Action{
			"break": func(_ context.Context, query url.Values) (any, error) {
				called.Add(1)
				switch query.Get("how") {
				case "not":
					return nil, Refusal("Not today")
				case "badly":
					return nil, errors.New("secret cause")
				}
				return map[string]int{"pid": 7}, nil
			},
		},
	})
}

// ask sends a request from this machine to testPage; headers are pairs.
func ask(t testing.TB, method, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return askPage(t, testPage(new(atomic.Int64)), method, path, headers...)
}

func askPage(t testing.TB, page http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Host = "127.0.0.1:8080"
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)
	return w
}

func wantHeader(t testing.TB, w *httptest.ResponseRecorder, name, want string) {
	t.Helper()
	if got := w.Header().Get(name); got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

func wantSafe(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	wantHeader(t, w, "Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	wantHeader(t, w, "X-Content-Type-Options", "nosniff")
	wantHeader(t, w, "Referrer-Policy", "no-referrer")
	wantHeader(t, w, "Cross-Origin-Resource-Policy", "same-origin")
}

func TestPageServesItsFiles(t *testing.T) {
	t.Parallel()
	for path, contentType := range map[string]string{
		"/":            "text/html; charset=utf-8",
		"/page.css":    "text/css; charset=utf-8",
		"/page.js":     "text/javascript; charset=utf-8",
		"/stream.js":   "text/javascript; charset=utf-8",
		"/rows.js":     "text/javascript; charset=utf-8",
		"/detail.js":   "text/javascript; charset=utf-8",
		"/dev.js":      "text/javascript; charset=utf-8",
		"/words.js":    "text/javascript; charset=utf-8",
		"/client.js":   "text/javascript; charset=utf-8",
		"/favicon.svg": "image/svg+xml",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := ask(t, http.MethodGet, path)
			if w.Code != http.StatusOK || w.Body.Len() == 0 {
				t.Fatalf("status %d, %d bytes", w.Code, w.Body.Len())
			}
			wantSafe(t, w)
			wantHeader(t, w, "Content-Type", contentType)
			wantHeader(t, w, "Cache-Control", "no-cache")
			etag := w.Header().Get("ETag")
			if len(etag) != 18 {
				t.Errorf("ETag: %q", etag)
			}

			if head := ask(t, http.MethodHead, path); head.Code != http.StatusOK || head.Body.Len() != 0 {
				t.Errorf("HEAD: status %d, %d bytes", head.Code, head.Body.Len())
			}
			again := ask(t, http.MethodGet, path, "If-None-Match", etag)
			if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
				t.Errorf("the same again: status %d, %d bytes", again.Code, again.Body.Len())
			}
			wantSafe(t, again)
		})
	}
}

// The policy forbids inline scripts and styles, and the page must need nothing from other hosts.
func TestPageKeepsItsOwnPolicy(t *testing.T) {
	t.Parallel()
	html := ask(t, http.MethodGet, "/").Body.String()
	for _, forbidden := range []string{" style=", "<style", " onclick=", " onload=", "javascript:", "http://", "https://", "<script>"} {
		if strings.Contains(html, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	js := ask(t, http.MethodGet, "/client.js").Body.String()
	for _, name := range scripts {
		js += ask(t, http.MethodGet, "/"+name).Body.String()
	}
	for _, forbidden := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"} {
		if strings.Contains(js, forbidden) {
			t.Errorf("the scripts contain %q", forbidden)
		}
	}
}

func TestPageHasNothingElse(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/index.html", "/web.go", "/openapi.yaml", "/client/client.js", "/package.json", "//", "/page.css/", "/../", "/%2e%2e/web.go", "/dev.json/"} {
		w := ask(t, http.MethodGet, path)
		if got := w.Body.String(); w.Code != http.StatusNotFound || got != `{"error":"Not found"}` {
			t.Errorf("%s: %d %s", path, w.Code, got)
		}
		wantSafe(t, w)
		wantHeader(t, w, "Content-Type", "application/json")
	}
}

func TestPageAnswersOtherMethods(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ method, path, allow string }{
		{http.MethodPost, "/", "GET, HEAD"},
		{http.MethodPost, "/dev.json", "GET, HEAD"},
		{http.MethodPost, "/dev/pulse", "GET, HEAD"},
		{http.MethodGet, "/dev/break", "POST"},
		{http.MethodDelete, "/dev/break", "POST"},
	} {
		w := ask(t, tt.method, tt.path)
		if got := w.Body.String(); w.Code != http.StatusMethodNotAllowed || got != `{"error":"Method not allowed: use `+tt.allow+`"}` {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, w.Code, got)
		}
		wantHeader(t, w, "Allow", tt.allow)
		wantSafe(t, w)
	}
}

func TestDevJSON(t *testing.T) {
	t.Parallel()
	w := ask(t, http.MethodGet, "/dev.json")
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	wantSafe(t, w)
	wantHeader(t, w, "Content-Type", "application/json")
	wantHeader(t, w, "Cache-Control", "no-store")
	var got Dev
	testkit.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	want := testDev
	want.Actions, want.Feeds = true, []string{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDevJSONWithoutAudits(t *testing.T) {
	t.Parallel()
	w := askPage(t, Page(Options{Dev: func() Dev { return Dev{} }}), http.MethodGet, "/dev.json")
	if got, want := w.Body.String(), `{"audits":[],"token":"","user":"","by_hand":0,"sql":"","feeds":[],"actions":false}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDevActions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		query string
		code  int
		body  string
	}{
		{"", http.StatusOK, `{"pid":7}`},
		{"?how=not", http.StatusConflict, `{"error":"Not today"}`},
		{"?how=badly", http.StatusServiceUnavailable, `{"error":"The database does not answer"}`},
	} {
		w := ask(t, http.MethodPost, "/dev/break"+tt.query, "Sec-Fetch-Site", "same-origin")
		if w.Code != tt.code || w.Body.String() != tt.body {
			t.Errorf("%s: %d %s, want %d %s", tt.query, w.Code, w.Body, tt.code, tt.body)
		}
		wantSafe(t, w)
		wantHeader(t, w, "Cache-Control", "no-store")
	}
	if w := ask(t, http.MethodGet, "/dev/pulse"); w.Code != http.StatusOK || w.Body.String() != `"secret-pulse"` {
		t.Errorf("/dev/pulse: %d %s", w.Code, w.Body)
	}
}

// Requests that another site's page makes a browser send do nothing, nor do those of a rebound host name.
func TestDevActionsAreForItsOwnPageAlone(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:9999"},
		{"Origin", "https://evil.example"}, // an old browser
		{"Origin", "null"},
		{"Origin", "http://127.0.0.1:9999"},
		{"Host", "rebind.example:8080", "Sec-Fetch-Site", "same-origin", "Origin", "http://rebind.example:8080"},
		{"Host", "rebind.example:8080"},
	} {
		var called atomic.Int64
		w := askPage(t, testPage(&called), http.MethodPost, "/dev/break", headers...)
		if w.Code != http.StatusForbidden || called.Load() != 0 {
			t.Errorf("%q: status %d, done %d times, want 403 and never", headers, w.Code, called.Load())
		}
	}
}

// The page of serve has nothing of dev's, and says whether a cookie may authenticate.
func TestPageWithoutDev(t *testing.T) {
	t.Parallel()
	for mode, options := range map[string]Options{"token": {}, "cookie": {Cookie: true}, "dev": {Dev: func() Dev { return Dev{} }}} {
		page := Page(options)
		if html := askPage(t, page, http.MethodGet, "/").Body.String(); !strings.Contains(html, `data-mode="`+mode+`"`) {
			t.Errorf("the page does not say data-mode=%q", mode)
		}
		for _, path := range []string{"/dev/pulse", "/dev/break"} {
			if w := askPage(t, page, http.MethodPost, path); w.Code != http.StatusNotFound {
				t.Errorf("%s: %s: status %d, want 404", mode, path, w.Code)
			}
		}
		if w := askPage(t, page, http.MethodGet, "/dev.json"); (w.Code == http.StatusOK) != (mode == "dev") {
			t.Errorf("%s: /dev.json: status %d", mode, w.Code)
		}
	}
}

func TestDevJSONAnswersItsOwnPageAlone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		host, site string
		want       int
	}{
		{"127.0.0.1:8080", "same-origin", http.StatusOK},
		{"127.0.0.1:8080", "none", http.StatusOK}, // typed into the address bar
		{"127.0.0.1", "", http.StatusOK},
		{"127.8.9.10:8080", "", http.StatusOK},
		{"localhost:8080", "same-origin", http.StatusOK},
		{"LocalHost", "", http.StatusOK},
		{"[::1]:8080", "", http.StatusOK},
		{"[::1]", "", http.StatusOK},
		{"[::ffff:127.0.0.1]:8080", "", http.StatusOK},

		{"127.0.0.1:8080", "cross-site", http.StatusForbidden},
		{"127.0.0.1:8080", "same-site", http.StatusForbidden}, // a page on another port
		{"localhost:8080", "anything", http.StatusForbidden},

		// What a browser sends after DNS rebinding: the attacker's name, and same-origin.
		{"rebind.example:8080", "same-origin", http.StatusForbidden},
		{"rebind.example", "", http.StatusForbidden},
		{"127.0.0.1.rebind.example", "same-origin", http.StatusForbidden},
		{"localhost.rebind.example:8080", "same-origin", http.StatusForbidden},
		{"localhost:8080.rebind.example", "same-origin", http.StatusForbidden},
		{"localhost/.rebind.example", "", http.StatusForbidden},
		{"rebind.example@localhost", "", http.StatusForbidden},
		{"[localhost]:8080", "", http.StatusForbidden},
		{"192.168.1.10:8080", "", http.StatusForbidden},
		{"0.0.0.0:8080", "", http.StatusForbidden},
		{"[::]:8080", "", http.StatusForbidden},
		{"2130706433", "", http.StatusForbidden},
		{"", "", http.StatusForbidden},
	} {
		w := ask(t, http.MethodGet, "/dev.json", "Host", tt.host, "Sec-Fetch-Site", tt.site)
		if w.Code != tt.want {
			t.Errorf("host %q, site %q: status %d, want %d", tt.host, tt.site, w.Code, tt.want)
		}
		if told := strings.Contains(w.Body.String(), testDev.Token); told != (tt.want == http.StatusOK) {
			t.Errorf("host %q, site %q: %s", tt.host, tt.site, w.Body)
		}
		wantHeader(t, w, "Cache-Control", "no-store")
	}
}

// A public tool reads the description: its structure, its references, and that each example is what its schema says. That
// the server does what it says is tested in integration, TestAPIDescription.
func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI)
	testkit.NoError(t, err)
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	if got := doc.OpenAPI; got != "3.1.0" {
		t.Errorf("openapi: %v", got)
	}
	got := slices.Sorted(maps.Keys(doc.Paths.Map()))
	want := []string{"/api/v1/audits/{audit_id}/status", "/api/v1/sse/audits/progress", "/api/v1/sse/audits/{audit_id}/progress",
		"/api/v1/sse/{feed}/progress", "/api/v1/sse/{feed}/{id}/progress", "/api/v1/{feed}/{id}/status", "/healthz", "/openapi.yaml", "/readyz"}
	if !slices.Equal(got, want) {
		t.Errorf("paths: %q, want %q", got, want)
	}
}
