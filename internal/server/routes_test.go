package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func serve(s *Server, r *http.Request) *client {
	c := newClient()
	s.routes().ServeHTTP(c, r)
	return c
}

func TestForeignPagesMayReadRefusals(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.CORSOrigins = []string{"https://app.example"} })
	c := serve(s, get(t, streamPath, "Origin", "https://app.example"))
	if got := c.header.Get("Access-Control-Allow-Origin"); got != "https://app.example" || c.status != http.StatusUnauthorized {
		t.Errorf("%d, allowed origin %q", c.status, got)
	}
	exposed := strings.ToLower(c.header.Get("Access-Control-Expose-Headers"))
	for _, name := range []string{"etag", "retry-after", "www-authenticate"} {
		if !strings.Contains(exposed, name) {
			t.Errorf("%s is not exposed: %q", name, exposed)
		}
	}
}

func TestWithoutCORSNobodyIsAllowed(t *testing.T) {
	t.Parallel()
	r := get(t, streamPath, "Origin", "https://app.example", "Access-Control-Request-Method", "GET")
	r.Method = http.MethodOptions
	c := serve(newTestServer(t, hubFunc(unreachable), nil), r)
	if c.status != http.StatusMethodNotAllowed || c.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", c.status, c.header)
	}
}

// The status route replaced the Vary header that CORS had set, so a cache could hand one origin's answer to another.
func TestStatusKeepsVaryOrigin(t *testing.T) {
	t.Parallel()
	sub, _ := one(running(1))
	s := newTestServer(t, sub, func(c *Config) { c.CORSOrigins = []string{"https://app.example"} })
	c := serve(s, authorized(t, "/api/v1/audits/42/status", "Origin", "https://app.example"))
	vary := strings.ToLower(strings.Join(c.header.Values("Vary"), ", "))
	for _, name := range []string{"origin", "authorization", "cookie"} {
		if !slices.Contains(strings.Split(vary, ", "), name) {
			t.Errorf("Vary %q lacks %s", vary, name)
		}
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	for path, allow := range map[string]string{
		streamPath:                  "GET",
		"/api/v1/audits/42/status":  "GET, HEAD",
		"/healthz":                  "GET, HEAD",
		"/readyz":                   "GET, HEAD",
		"/openapi.yaml":             "GET, HEAD",
		"/api/v1/audits/abc/status": "GET, HEAD",
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"} {
			r := authorized(t, path)
			r.Method = method
			c := serve(newTestServer(t, hubFunc(unreachable), nil), r)
			if c.status != http.StatusMethodNotAllowed || c.header.Get("Allow") != allow {
				t.Errorf("%s %s: %d, Allow %q, want 405, %q", method, path, c.status, c.header.Get("Allow"), allow)
			}
		}
	}
	r := authorized(t, streamPath)
	r.Method = http.MethodHead
	c := serve(newTestServer(t, hubFunc(unreachable), nil), r)
	if c.status != http.StatusMethodNotAllowed || c.String() != "" {
		t.Errorf("HEAD of a stream: %d %q, want 405 without a body", c.status, c.String())
	}
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/healthz", "/readyz", "/openapi.yaml", "/api/v1/audits/42/status", "/api/v1/audits/0/status", "/nowhere"} {
		answer := func(method string) *client {
			sub, _ := one(running(1))
			r := authorized(t, path)
			r.Method = method
			return serve(newTestServer(t, sub, nil), r)
		}
		full, head := answer(http.MethodGet), answer(http.MethodHead)
		if head.status != full.status || head.String() != "" || full.String() == "" {
			t.Errorf("%s: HEAD %d %q, GET %d", path, head.status, head.String(), full.status)
		}
		for _, name := range []string{"Content-Length", "Content-Type", "ETag", "Cache-Control"} {
			if got, want := head.header.Get(name), full.header.Get(name); got != want {
				t.Errorf("%s: %s %q, want %q as for GET", path, name, got, want)
			}
		}
	}
}

func TestHealthz(t *testing.T) {
	t.Parallel()
	c := serve(newTestServer(t, hubFunc(unreachable), func(c *Config) {
		c.Ping = func(context.Context) error { return errTest } // which is not healthz's business
	}), get(t, "/healthz"))
	if c.status != http.StatusOK || c.String() != `{"status":"ok"}` || c.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s %v", c.status, c.String(), c.header)
	}
}

func TestPageServesWhatIsNotTheAPIs(t *testing.T) {
	t.Parallel()
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Page = page })
	for path, want := range map[string]int{
		"/": 418, "/page.js": 418, "/healthz": 200, "/api/": 404, "/api/v1/other": 404, streamPath + "/": 404, "//healthz": 418,
	} {
		if got := serve(s, get(t, path)).status; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestReadyzAsksAgainAfterASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pings, fail := 0, errTest
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) {
			c.Ping = func(context.Context) error { pings++; return fail }
		})
		down := serve(s, get(t, "/readyz"))
		if down.status != http.StatusServiceUnavailable || down.header.Get("Retry-After") != "1" {
			t.Errorf("%d, Retry-After %q, want 503 and 1", down.status, down.header.Get("Retry-After"))
		}
		fail = nil
		time.Sleep(999 * time.Millisecond)
		if got := serve(s, get(t, "/readyz")).status; got != http.StatusServiceUnavailable || pings != 1 {
			t.Errorf("%d after %d pings, want the answer of the first", got, pings)
		}
		time.Sleep(time.Millisecond)
		if got := serve(s, get(t, "/readyz")).status; got != http.StatusOK || pings != 2 {
			t.Errorf("%d after %d pings, want 200 after the second", got, pings)
		}
	})
}

func TestReadyzGivesUpOnADatabaseThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) {
			c.Ping = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		start := time.Now()
		if got := serve(s, get(t, "/readyz")).status; got != http.StatusServiceUnavailable || time.Since(start) != firstReadTimeout {
			t.Errorf("%d after %v, want 503 after %v", got, time.Since(start), firstReadTimeout)
		}
	})
}
