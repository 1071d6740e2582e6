package web

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

var testDev = Dev{Audits: []int64{3, 4}, Token: "secret-token", User: "dev", ByHand: 3, SQL: `psql -c "update <audits>"`}

// ask sends a request from this machine to a Page; headers are pairs.
func ask(t testing.TB, method, path string, headers ...string) *httptest.ResponseRecorder {
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
	Page(func() Dev { return testDev }).ServeHTTP(w, r)
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

// The policy forbids what is inline, and the page must not need what is elsewhere.
func TestPageKeepsItsOwnPolicy(t *testing.T) {
	t.Parallel()
	html := ask(t, http.MethodGet, "/").Body.String()
	for _, forbidden := range []string{" style=", "<style", " onclick=", " onload=", "javascript:", "http://", "https://", "<script>"} {
		if strings.Contains(html, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	js := ask(t, http.MethodGet, "/page.js").Body.String() + ask(t, http.MethodGet, "/client.js").Body.String()
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
	for _, path := range []string{"/", "/dev.json"} {
		w := ask(t, http.MethodPost, path)
		if got := w.Body.String(); w.Code != http.StatusMethodNotAllowed || got != `{"error":"Method not allowed: use GET, HEAD"}` {
			t.Errorf("POST %s: %d %s", path, w.Code, got)
		}
		wantHeader(t, w, "Allow", "GET, HEAD")
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
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, testDev) {
		t.Errorf("got %+v, want %+v", got, testDev)
	}
}

func TestDevJSONWithoutAudits(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/dev.json", nil)
	Page(func() Dev { return Dev{} }).ServeHTTP(w, r)
	if got, want := w.Body.String(), `{"audits":[],"token":"","user":"","by_hand":0,"sql":""}`; got != want {
		t.Errorf("got %s, want %s", got, want)
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
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	if got := doc.OpenAPI; got != "3.1.0" {
		t.Errorf("openapi: %v", got)
	}
	got := slices.Sorted(maps.Keys(doc.Paths.Map()))
	want := []string{"/api/v1/audits/{audit_id}/status", "/api/v1/sse/audits/progress", "/api/v1/sse/audits/{audit_id}/progress", "/healthz", "/openapi.yaml", "/readyz"}
	if !slices.Equal(got, want) {
		t.Errorf("paths: %q, want %q", got, want)
	}
}

// TestBrowserClient runs the client's tests that need no server of ours.
func TestBrowserClient(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("the browser client's tests need Node.js 20 or later: install it (Debian: apt-get install nodejs npm) and have it on the PATH")
	}
	tests, err := filepath.Glob("client/test/*.test.mjs")
	if err != nil || len(tests) == 0 {
		t.Fatalf("the client's tests: %q, %v", tests, err)
	}
	out, err := exec.CommandContext(t.Context(), node, append([]string{"--test", "--test-timeout=30000"}, tests...)...).CombinedOutput()
	if err != nil {
		t.Errorf("node --test %s: %v\n%s", strings.Join(tests, " "), err, out)
	}
}

// TestBrowserClientTypes checks the declarations with tsc, by code that uses them.
func TestBrowserClientTypes(t *testing.T) {
	t.Parallel()
	const compiler = "client/test/node_modules/typescript/bin/tsc"
	if _, err := os.Stat(compiler); err != nil {
		t.Fatal("the browser client's types are checked with tsc: run npm ci in server/web/client/test, as make test does")
	}
	if out, err := exec.CommandContext(t.Context(), "node", compiler, "-p", "client/test", "--noEmit").CombinedOutput(); err != nil {
		t.Errorf("tsc: %v\n%s", err, out)
	}
}

// TestBrowserClientIsSmall holds the whole client, with its comments, below 6 kB as it goes over the wire.
func TestBrowserClientIsSmall(t *testing.T) {
	t.Parallel()
	const most = 6000
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(ask(t, http.MethodGet, "/client.js").Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() >= most {
		t.Errorf("client.js is %d bytes gzipped, want below %d", packed.Len(), most)
	}
}
