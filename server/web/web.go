// Package web holds the files that the server sends as they are, and the page that is made of them.
//
// The rule that keeps it right: the page needs nothing from anywhere else, so the strictest content security policy
// holds for it, and whatever text ends up in it stays text.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// OpenAPI describes the HTTP API.
//
//go:embed openapi.yaml
var OpenAPI []byte

//go:embed index.html page.css page.js client/client.js favicon.svg
var files embed.FS

// Dev is what the page needs to know where it shows a development server.
type Dev struct {
	// Audits are the ids of the audits to show.
	Audits []int64 `json:"audits"`
	// Token authenticates their owner, User.
	Token string `json:"token"`
	User  string `json:"user"`
	// ByHand is the audit that nobody but the developer changes; 0: there is none.
	ByHand int64 `json:"by_hand"`
	// SQL is the shell command that changes it.
	SQL string `json:"sql"`
}

const (
	writeTimeout = 5 * time.Second
	policy       = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// Page serves the page, its parts and /dev.json; every other path is answered 404. data is called for each /dev.json, by
// several goroutines at once.
func Page(data func() Dev) http.Handler {
	routes := map[string]http.HandlerFunc{
		"/":            asset("index.html", "text/html; charset=utf-8"),
		"/page.css":    asset("page.css", "text/css; charset=utf-8"),
		"/page.js":     asset("page.js", "text/javascript; charset=utf-8"),
		"/client.js":   asset("client/client.js", "text/javascript; charset=utf-8"),
		"/favicon.svg": asset("favicon.svg", "image/svg+xml"),
		"/dev.json":    devJSON(data),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// A deadline a request, as elsewhere: there is no server-wide one. It must not outlast the answer on a connection
		// that is used again.
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a test's recorder has none
		defer func() {
			_ = rc.Flush()
			_ = rc.SetWriteDeadline(time.Time{})
		}()

		route, ok := routes[r.URL.Path]
		switch {
		case !ok:
			writeError(w, http.StatusNotFound, "Not found")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "Method not allowed: use GET, HEAD")
		default:
			route(w, r)
		}
	})
}

// asset serves an embedded file. Browsers keep it, and ask each time whether it is still the same.
func asset(name, contentType string) http.HandlerFunc {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the name is not in the go:embed line above
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

// devJSON hands out a token, so it answers the page alone: not another site's page that the developer has open, nor one
// that had its host name resolve to a loopback address (DNS rebinding).
func devJSON(data func() Dev) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch r.Header.Get("Sec-Fetch-Site") {
		case "same-origin", "none", "":
		default:
			writeError(w, http.StatusForbidden, "Only for the page of this server")
			return
		}
		if !loopbackHost(r.Host) {
			writeError(w, http.StatusForbidden, "Only under a loopback name: open the page as localhost or 127.0.0.1")
			return
		}
		dev := data()
		if dev.Audits == nil {
			dev.Audits = []int64{}
		}
		writeJSON(w, http.StatusOK, dev)
	}
}

// loopbackHost reports whether a Host header names this machine.
func loopbackHost(host string) bool {
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return strings.EqualFold(u.Hostname(), "localhost")
	}
	return ip.Unmap().IsLoopback()
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
	_, _ = w.Write(body) // a client that has gone; net/http drops the body of a HEAD
}
