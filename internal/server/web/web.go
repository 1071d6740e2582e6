// Package web serves the page for browsers, the client's script, and the API's description (openapi.yaml).
//
// The rule that keeps it right: the page loads nothing from other hosts, so the strictest content security policy holds for it, and it
// shows a row's text as text, never as HTML.
//
// Who calls what: cmd/auditstream gives [Page] to package server as Config.Page, which itself uses only [OpenAPI]. dev fills in [Options].Dev
// and the actions; serve has neither.
//
// Files, in the order in which to read them: web.go (the page), dev.go (what dev adds), then index.html and the scripts.
package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OpenAPI describes the HTTP API.
//
//go:embed openapi.yaml
var OpenAPI []byte

//go:embed index.html page.css page.js stream.js rows.js detail.js dev.js words.js client/client.js favicon.svg
var files embed.FS

// scripts are the page's modules.
var scripts = []string{"page.js", "stream.js", "rows.js", "detail.js", "dev.js", "words.js"}

const (
	writeTimeout = 5 * time.Second
	policy       = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// Options choose the kind of page. The zero value is the page of serve, which asks for a token.
type Options struct {
	// Cookie: the browser may have the token in a cookie, so the page tries without a token before it asks for one.
	Cookie bool
	// Dev makes it the page of a development server. It returns the content of /dev.json. It is called concurrently.
	Dev func() Dev
	// Pulse answers GET /dev/pulse, and Actions answer POST /dev/NAME; nil: there are none. They are called concurrently. Set them only for
	// a server that no other machine can reach.
	Pulse   func(ctx context.Context) any
	Actions map[string]Action
	// Docs answers GET /docs/ and the paths below it; nil: 404.
	Docs http.Handler
}

// Page serves the page and its parts; every other path is answered 404.
func Page(o Options) http.Handler {
	mode := "token"
	if o.Cookie {
		mode = "cookie"
	}
	if o.Dev != nil {
		mode = "dev"
	}
	routes := map[string]http.HandlerFunc{
		"/": asset("index.html", "text/html; charset=utf-8", func(html []byte) []byte {
			if o.Docs != nil {
				html = bytes.Replace(html, []byte("<footer>\n    <p>"), []byte("<footer>\n    <p><a href=\"/docs/\">Documents</a> "), 1)
			}
			return bytes.Replace(html, []byte(`data-mode="token"`), []byte(`data-mode="`+mode+`"`), 1)
		}),
		"/page.css":    asset("page.css", "text/css; charset=utf-8", nil),
		"/client.js":   asset("client/client.js", "text/javascript; charset=utf-8", nil),
		"/favicon.svg": asset("favicon.svg", "image/svg+xml", nil),
	}
	for _, name := range scripts {
		routes["/"+name] = asset(name, "text/javascript; charset=utf-8", nil)
	}
	actions := o.devRoutes(routes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// Each request sets its deadline, because there is no server-wide one, and clears it, because the connection may be used again.
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails for a test's recorder only
		defer func() {
			_ = rc.Flush()
			_ = rc.SetWriteDeadline(time.Time{})
		}()

		route, allow := routes[r.URL.Path], "GET, HEAD"
		if action, ok := actions[r.URL.Path]; ok {
			route, allow = action, "POST"
		}
		if route == nil && o.Docs != nil && strings.HasPrefix(r.URL.Path, "/docs/") {
			route = o.Docs.ServeHTTP
		}
		switch {
		case route == nil:
			writeError(w, http.StatusNotFound, "Not found")
		case !slices.Contains(strings.Split(allow, ", "), r.Method):
			h.Set("Allow", allow)
			writeError(w, http.StatusMethodNotAllowed, "Method not allowed: use "+allow)
		default:
			route(w, r)
		}
	})
}

// asset serves an embedded file, changed once by change unless that is nil. Browsers cache it, and ask each time whether it has changed.
func asset(name, contentType string, change func([]byte) []byte) http.HandlerFunc {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the name is missing in the go:embed line above
	}
	if change != nil {
		body = change(body)
	}
	sum := sha256.Sum256(body)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", etag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
	}
}

func writeError(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, struct {
		Error string `json:"error"`
	}{text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"Internal server error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails if the client has disconnected; net/http drops the body of a HEAD
}
