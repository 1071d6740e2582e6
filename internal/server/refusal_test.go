package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	foreign := auditOf("42", "bob", "running", 0)
	bearer := "Bearer " + aliceToken(t)
	for name, tc := range map[string]struct {
		method, path string
		headers      []string
		state        *store.State
		status       int
		body         string
		also         [2]string // a header and its value
	}{
		"no token":         {path: streamPath, status: 401, body: `{"error":"Missing authentication token"}`, also: [2]string{"WWW-Authenticate", `Bearer realm="auditstream"`}},
		"another scheme":   {path: streamPath, headers: []string{"Authorization", "Basic YTpi"}, status: 401, body: `{"error":"Missing authentication token"}`},
		"a bad token":      {path: streamPath, headers: []string{"Authorization", "Bearer abc"}, status: 401, body: `{"error":"Invalid authentication token"}`, also: [2]string{"WWW-Authenticate", errInvalidToken.challenge}},
		"no token at all":  {path: streamPath, headers: []string{"Authorization", "Bearer"}, status: 400, body: `{"error":"` + errMalformedAuth.text + `"}`},
		"two headers":      {path: streamPath, headers: []string{"Authorization", bearer, "Authorization", bearer}, status: 400, body: `{"error":"` + errMalformedAuth.text + `"}`},
		"token in the URL": {path: streamPath + "?access_token=x", headers: []string{"Authorization", bearer}, status: 401, body: `{"error":"Invalid authentication token"}`},
		"a JWT in the URL": {path: streamPath + "?q=" + strings.TrimPrefix(bearer, "Bearer "), headers: []string{"Authorization", bearer}, status: 401, body: `{"error":"Invalid authentication token"}`},
		"id 0":             {path: "/api/v1/sse/audits/0/progress", headers: []string{"Authorization", bearer}, status: 400, body: `{"error":"` + errInvalidKey.text + `"}`},
		"id -1":            {path: "/api/v1/audits/-1/status", headers: []string{"Authorization", bearer}, status: 400, body: `{"error":"` + errInvalidKey.text + `"}`},
		"id 042":           {path: "/api/v1/audits/042/status", headers: []string{"Authorization", bearer}, status: 400, body: `{"error":"` + errInvalidKey.text + `"}`},
		"id of 65 bits":    {path: "/api/v1/audits/9223372036854775808/status", headers: []string{"Authorization", bearer}, status: 400, body: `{"error":"` + errInvalidKey.text + `"}`},
		"somebody else's":  {path: streamPath, headers: []string{"Authorization", bearer}, state: foreign, status: 403, body: `{"error":"Cross-user access denied"}`},
		"no such audit":    {path: streamPath, headers: []string{"Authorization", bearer}, state: &store.State{ID: "42"}, status: 404, body: `{"error":"Audit not found"}`},
		"no such feed":     {path: "/api/v1/sse/jobs/42/progress", headers: []string{"Authorization", bearer}, status: 404, body: `{"error":"No such feed"}`},
		"no feed's name":   {path: "/api/v1/Jobs%2f/42/status", headers: []string{"Authorization", bearer}, status: 404, body: `{"error":"No such feed"}`},
		"no such path":     {path: "/metrics", status: 404, body: `{"error":"Not found"}`},
		"another method":   {method: http.MethodPost, path: streamPath, status: 405, body: `{"error":"Method not allowed: use GET"}`, also: [2]string{"Allow", "GET"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := tc.state
			if state == nil {
				state = running(1)
			}
			sub, _ := one(state)
			r := get(t, tc.path, tc.headers...)
			if tc.method != "" {
				r.Method = tc.method
			}
			c := newClient()
			newTestServer(t, sub, nil).routes().ServeHTTP(c, r)
			if c.status != tc.status || c.String() != tc.body {
				t.Errorf("got %d %s, want %d %s", c.status, c.String(), tc.status, tc.body)
			}
			if got := c.header.Get(tc.also[0]); tc.also[0] != "" && got != tc.also[1] {
				t.Errorf("%s: got %q, want %q", tc.also[0], got, tc.also[1])
			}
			if got := c.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type: got %q", got)
			}
			if got := c.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control: got %q, want no-store", got)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	state := running(7)
	etag := `"` + state.Fingerprint + `"`
	for name, tc := range map[string]struct {
		match  string
		status int
		body   string
	}{
		"fresh":       {"", 200, string(state.JSON)},
		"another one": {`"0123456789abcdef"`, 200, string(state.JSON)},
		"the same":    {etag, 304, ""},
		"weak":        {"W/" + etag, 304, ""},
		"in a list":   {`"x", ` + etag, 304, ""},
		"any":         {"*", 304, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub, _ := one(state)
			c := newClient()
			newTestServer(t, sub, nil).routes().ServeHTTP(c, authorized(t, "/api/v1/audits/42/status", "If-None-Match", tc.match))
			if c.status != tc.status || c.String() != tc.body {
				t.Errorf("got %d %q, want %d %q", c.status, c.String(), tc.status, tc.body)
			}
			if got := c.header.Get("ETag"); got != etag {
				t.Errorf("ETag: got %s, want %s", got, etag)
			}
			if got := c.header.Get("Cache-Control"); got != "private, no-cache" {
				t.Errorf("Cache-Control: got %q", got)
			}
		})
	}
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ping     error
		up       bool
		draining bool
		status   int
		body     string
	}{
		"up":            {nil, true, false, 200, `{"status":"ready","database":"up","listener":"up"}`},
		"polling":       {nil, false, false, 200, `{"status":"ready","database":"up","listener":"polling"}`},
		"no database":   {errTest, false, false, 503, `{"status":"unavailable","database":"down","listener":"polling"}`},
		"shutting down": {nil, true, true, 503, `{"status":"shutting down","database":"up","listener":"up"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pings := 0
			s := newTestServer(t, hubFunc(unreachable), func(c *Config) {
				c.Ping = func(context.Context) error { pings++; return tc.ping }
				c.Listening = func() bool { return tc.up }
			})
			s.draining.Store(tc.draining)
			for range 3 {
				c := newClient()
				s.routes().ServeHTTP(c, get(t, "/readyz"))
				if c.status != tc.status || c.String() != tc.body {
					t.Errorf("got %d %s, want %d %s", c.status, c.String(), tc.status, tc.body)
				}
			}
			if pings != 1 {
				t.Errorf("the database was asked %d times within a second, want once", pings)
			}
		})
	}
}

func TestCookieOnSameOriginOnly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		headers []string
		want    int
	}{
		"no origin":        {nil, 200},
		"this origin":      {[]string{"Origin", "http://example.com"}, 200},
		"behind basic":     {[]string{"Authorization", "Basic YTpi"}, 200},
		"a bad bearer":     {[]string{"Authorization", "Bearer abc"}, 401},
		"fetch metadata":   {[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		"another origin":   {[]string{"Origin", "https://evil.example"}, 401},
		"cross-site":       {[]string{"Sec-Fetch-Site", "cross-site"}, 401},
		"same site, other": {[]string{"Sec-Fetch-Site", "same-site"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub, _ := one(ended("completed"))
			r := get(t, streamPath, tc.headers...)
			r.AddCookie(&http.Cookie{Name: "session", Value: aliceToken(t)})
			c := newClient()
			newTestServer(t, sub, func(c *Config) { c.AuthCookie = "session" }).routes().ServeHTTP(c, r)
			if c.status != tc.want {
				t.Errorf("status %d, want %d: %s", c.status, tc.want, c.String())
			}
		})
	}
}

// The route is logged, and not the path, which may hold anything.
func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	log := new(testkit.Log)
	token := aliceToken(t)
	secretText := store.NewState(store.Row{ID: "42", Status: "failed", UserID: text("alice"), Message: text("row text"), Error: text("row error")})
	for _, path := range []string{
		streamPath, streamPath + "?token=" + token, "/api/v1/audits/0/status", "/api/v1/audits/" + token + "/status",
		"/" + token, "/x/%65" + token[1:], "/" + strings.ReplaceAll(token, ".", "%252e"), "/a" + token + "/b",
	} {
		for _, header := range []string{"Bearer " + token, ""} {
			hub, _ := one(secretText)
			serve(newTestServer(t, hub, func(c *Config) { c.Logger = log.DebugLogger() }), get(t, path, "Authorization", header))
		}
	}
	if log.Lines() == 0 {
		t.Fatal("nothing was logged at all")
	}
	for _, secret := range []string{token, strings.Split(token, ".")[2], "row text", "row error", testSecret} {
		if log.Has(secret) {
			t.Errorf("the log contains %q:\n%s", secret, log)
		}
	}
}

// Whatever is sent as Authorization: a token is taken whole or not at all, within its bound, and a request without a valid
// one is answered with the contract's JSON and challenge, that have nothing of what was sent.
func FuzzAuthorization(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer ", "bearer a.b.c", "Bearer a b", "Basic YTpi", "Bearer " + strings.Repeat("a", maxToken+1), "Bearer\ta", "Bearer a==", "Bearer =a", "\x00",
		"Bearer a\r\nSet-Cookie: x=y", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.", "Digest username=\"a\"", " Bearer a.b.c", "Bearer a.b.c,Bearer a.b.c", "BEARER ..", "Bearer \u00e9"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, value, cookie string) {
		token, err := bearer(value)
		if err == nil && (token == "" || len(token) > maxToken || !strings.HasSuffix(strings.TrimRight(value, " "), token) || strings.ContainsAny(token, " \t\r\n,;\x00")) {
			t.Errorf("%q: accepted the token %q", value, token)
		}
		sub, _ := one(running(1))
		r := get(t, streamPath)
		r.Header["Authorization"] = []string{value}
		r.AddCookie(&http.Cookie{Name: "session", Value: cookie})
		c := serve(newTestServer(t, sub, func(c *Config) { c.AuthCookie = "session" }), r)
		answers := map[string]*apiError{}
		for _, answer := range []*apiError{errMissingToken, errInvalidToken, errMalformedAuth} {
			answers[string(errorJSON(answer.text))] = answer
		}
		answer := answers[c.String()]
		if answer == nil || c.status != answer.status || c.header.Get("WWW-Authenticate") != answer.challenge || c.header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %s %v", value, c.status, c.String(), c.header)
		}
	})
}
