package server

import (
	"net/http"
	"strings"
	"testing"
)

// Pages of apps and extensions have origins that are no http.
func TestU23OtherSchemesAreOrigins(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{
		"capacitor://localhost", "ionic://localhost", "tauri://localhost", "https://tauri.localhost", "app://obsidian.md", "app://-",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://6e2f2c9a-0b0e-4c3b-9d0b-8f0f6f0a7d11",
		"safari-web-extension://E7A3B5A2-6C5C-4C5B-8E5A-1E9B8C6D7F00", "vscode-webview://1a2b", "com.example.app://localhost", "HTTPS://App.Example.Com",
		"http://localhost:3000", "http://[::1]:8080", "https://xn--bcher-kva.example", "*",
	} {
		if err := checkOrigin(origin); err != nil {
			t.Error(err)
		}
		if origin == "*" {
			continue
		}
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.CORSOrigins = []string{origin} })
		sent := strings.ToLower(origin) // as browsers send it
		for from, want := range map[string]string{sent: sent, sent + "x": ""} {
			if got := serve(s, get(t, "/healthz", "Origin", from)).Header().Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s, from %s: Access-Control-Allow-Origin %q, want %q", origin, from, got, want)
			}
		}
	}
	for origin, reason := range map[string]string{
		"null":                           "sandboxed",
		"file://":                        "sandboxed",
		"file:///index.html":             "sandboxed",
		"capacitor://localhost/":         "without a path or slash; want capacitor://localhost",
		"capacitor://localhost/index":    "want capacitor://localhost",
		"https://app.example?x":          "want https://app.example",
		"chrome-extension://*":           "no patterns",
		"https://*.example.com":          "no patterns",
		"https://app*":                   "no patterns",
		"**":                             "no patterns",
		"https://app.example:443":        "want https://app.example",
		"http://localhost:80":            "want http://localhost",
		"https://bücher.example":         "xn--",
		"capacitor:localhost":            "want SCHEME://HOST",
		"localhost":                      "want SCHEME://HOST",
		"://localhost":                   "want SCHEME://HOST",
		"app.example":                    "want SCHEME://HOST",
		"https://":                       "want SCHEME://HOST",
		"https://:443":                   "want SCHEME://HOST",
		"https://a b":                    "want SCHEME://HOST",
		"https://a:99999999":             "want SCHEME://HOST",
		"https://a:65536":                "want SCHEME://HOST",
		"wss://app.example":              "begins with http or https",
		" https://app.example":           "want SCHEME://HOST",
		"https://user:hush@app.example":  "want SCHEME://HOST",
		"https://a.example\r\nX-Evil: 1": "want SCHEME://HOST",
	} {
		err := checkOrigin(origin)
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.HasPrefix(err.Error(), "CORS_ALLOWED_ORIGINS: ") || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q: error %v, want one about %s", origin, err, reason)
		}
	}
}

// A preflight allows GET from the configured origins, with any header, and no cookies. Tracing in the browser adds headers of its own, and
// the preflight was refused.
func TestU13TracingHeadersAreAllowed(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.CORSOrigins = []string{"https://app.example"} })
	for _, headers := range []string{
		"authorization,last-event-id", "authorization,cache-control", "authorization,if-none-match", // a stream, a polyfill's, a conditional request
		"authorization,baggage,traceparent", "authorization,sentry-trace", "tracestate,x-request-id", "b3,x-b3-traceid,x-b3-sampled",
		"x-datadog-origin,x-datadog-trace-id", "newrelic", "uber-trace-id", "x-amzn-trace-id", "x-cloud-trace-context", "x-other", "",
	} {
		for _, path := range []string{streamPath, statusPathOf42} {
			for _, tc := range []struct{ origin, method, allowed, headers, age string }{
				{"https://app.example", "GET", "https://app.example", headers, "600"},
				{"https://app.example", "DELETE", "", "", ""},
				{"https://evil.example", "GET", "", "", ""},
			} {
				r := get(t, path, "Origin", tc.origin, "Access-Control-Request-Method", tc.method, "Access-Control-Request-Headers", headers)
				r.Method = http.MethodOptions
				c := serve(s, r)
				for name, want := range map[string]string{"Allow-Origin": tc.allowed, "Allow-Headers": tc.headers, "Allow-Credentials": "", "Max-Age": tc.age} {
					if got := c.header.Get("Access-Control-" + name); c.status != http.StatusNoContent || got != want {
						t.Errorf("%s with %s from %s: %d, Access-Control-%s %q, want %q", tc.method, headers, tc.origin, c.status, name, got, want)
					}
				}
			}
		}
	}
}
