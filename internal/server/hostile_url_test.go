package server

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// net/url leaves out parameters after a semicolon and those that are badly escaped; a JWT in them was served, and one in
// the path was a bad audit_id.
func TestJWTAnywhereInTheURLIsRefused(t *testing.T) {
	t.Parallel()
	token := aliceToken(t)
	twice := strings.ReplaceAll(token, ".", "%252e")
	for name, target := range map[string]string{
		"after a semicolon":        streamPath + "?a=b;q=" + token,
		"named after a semicolon":  streamPath + "?a=b;access_token=x",
		"beside a bad escape":      streamPath + "?q=%zz" + token,
		"in a badly escaped name":  streamPath + "?" + token + "%=x",
		"escaped twice":            streamPath + "?q=" + twice,
		"name escaped":             streamPath + "?%61ccess_token=x",
		"in a URL in a parameter":  streamPath + "?return=" + url.QueryEscape("https://app.example/?t="+token+"#x"),
		"in the path":              "/api/v1/sse/audits/" + token + "/progress",
		"in the path, escaped":     "/api/v1/sse/audits/%65" + token[1:] + "/progress",
		"in the user information":  "http://user:" + token + "@example.com" + streamPath,
		"with blanks before it":    streamPath + "?q=%20+" + token,
		"of an indented header":    streamPath + "?q=ewogICJhbGciOiAiSFMyNTYiCn0.ewogInN1YiI6ICJhIgp9.c2ln",
		"with an empty parameter":  streamPath + "?&&;;" + token,
		"as the last event's id":   streamPath + "?lastEventId=" + token,
		"as the last event's id 2": streamPath + "?last_event_id=7;" + token,
	} {
		sub, _ := one(ended("completed"))
		log := new(testkit.Log)
		c := serve(newTestServer(t, sub, func(c *Config) { c.Logger = log.DebugLogger() }), authorized(t, target))
		if c.status != http.StatusUnauthorized || c.String() != `{"error":"Invalid authentication token"}` || c.header.Get("WWW-Authenticate") != errTokenInURL.challenge {
			t.Errorf("%s: %d %s, want 401", name, c.status, c.String())
		}
		if log.Has(token[len(token)-8:]) || log.Lines() == 0 {
			t.Errorf("%s: the log has the token, or nothing: %s", name, log)
		}
	}
}

// A token is found anywhere in the URL, however it is escaped.
func FuzzTokenInURL(f *testing.F) {
	for _, seed := range []string{"", "q=", "a=b;q=", "q=%zz", "%", "%25", "&&", "https%3A%2F%2Fx%2F%3Ft%3D", "last_event_id=7&lastEventId=", "+", "ey", "eyJ.e", "\x00", "#"} {
		f.Add("", seed, "", byte(0))
		f.Add(seed, "", seed, byte(7))
	}
	f.Fuzz(func(t *testing.T, path, before, after string, escape byte) {
		const token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
		hidden := token
		if escape %= maxEscapes - 1; escape > 0 {
			before, path = before+"=", path+"/" // or half an escape at their end would take the token's first letters
		}
		for range escape { // the dots and one letter
			hidden = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(hidden, "%", "%25"), ".", "%2E"), "S", "%53")
		}
		if !tokenInURL(&url.URL{Path: "/" + path, RawQuery: before + hidden + after}) {
			t.Errorf("%q: accepted", before+hidden+after)
		}
		u := &url.URL{Path: "/" + path + hidden + after, RawQuery: before}
		if !tokenInURL(u) {
			t.Errorf("%q: accepted", u)
		}
		if len(unescape(before)) > len(before) {
			t.Errorf("%q grew", before)
		}
	})
}
