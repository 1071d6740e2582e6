package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

func TestAPICORS(t *testing.T) { harness.OverHTTP1And2(t, testAPICORS) }

func testAPICORS(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	db.SQL(t, "update audits set status = 'completed'")
	i := harness.Serve(t, db.Serve, "CORS_ALLOWED_ORIGINS=https://app.example.com, http://localhost:5173")
	preflight := []string{"Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization,last-event-id"}
	good := []string{"Authorization", "Bearer " + harness.AliceToken(t)}

	for _, origin := range []string{"https://app.example.com", "http://localhost:5173"} {
		for _, path := range []string{harness.StreamPath("1"), harness.StatusPath("1")} {
			got := i.Ask(t, "OPTIONS", path, append(preflight, "Origin", origin)...)
			want := map[string]string{
				"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Methods": "GET",
				"Access-Control-Allow-Headers": "authorization,last-event-id", "Access-Control-Max-Age": "600",
			}
			if got.Status != 204 || got.Body != "" || !maps.Equal(got.CORSHeaders(), want) {
				t.Errorf("preflight of %s from %s: %d %q %v, want 204 %v", path, origin, got.Status, got.Body, got.CORSHeaders(), want)
			}
			if !slices.Contains(strings.Split(got.Header.Get("Vary"), ", "), "Origin") {
				t.Errorf("Vary: %s, want Origin among it", got.Header.Get("Vary"))
			}
			want = map[string]string{"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Etag, Retry-After, Www-Authenticate, Auditstream-Answer"}
			for _, headers := range [][]string{good, nil} { // an answer of 401 is one that the page may read, too
				got := i.Ask(t, "GET", path, append(slices.Clone(headers), "Origin", origin)...)
				if !maps.Equal(got.CORSHeaders(), want) {
					t.Errorf("GET %s from %s: %d %v, want %v", path, origin, got.Status, got.CORSHeaders(), want)
				}
			}
		}
	}
	for _, origin := range []string{"https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "https://app.example.com:444", "null"} {
		got := i.Ask(t, "OPTIONS", harness.StreamPath("1"), append(preflight, "Origin", origin)...)
		if len(got.CORSHeaders()) > 0 {
			t.Errorf("preflight from %s: %v, want nothing allowed", origin, got.CORSHeaders())
		}
		got = i.Ask(t, "GET", harness.StreamPath("1"), append(slices.Clone(good), "Origin", origin)...)
		if len(got.CORSHeaders()) > 0 {
			t.Errorf("GET from %s: %v, want nothing allowed", origin, got.CORSHeaders())
		}
	}
}

func TestAPIAuthCookie(t *testing.T) { harness.OverHTTP1And2(t, testAPIAuthCookie) }

func testAPIAuthCookie(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve, "SSE_AUTH_COOKIE=session", "CORS_ALLOWED_ORIGINS=https://app.example.com")
	cookie := "other=1; session=" + harness.AliceToken(t)
	for _, tt := range []struct {
		name            string
		headers         []string
		status          int
		body, challenge string
	}{
		{"from a page of ours", []string{"Sec-Fetch-Site", "same-origin", "Cookie", cookie}, 200, "", ""},
		{"typed by the user", []string{"Sec-Fetch-Site", "none", "Cookie", cookie}, 200, "", ""},
		{"with our origin", []string{"Origin", i.URL, "Sec-Fetch-Site", "same-origin", "Cookie", cookie}, 200, "", ""},
		{"no browser", []string{"Cookie", cookie}, 200, "", ""},
		{"from another site", []string{"Sec-Fetch-Site", "cross-site", "Cookie", cookie}, 401, missingToken, missingChallenge},
		{"from another origin, old browser", []string{"Origin", "https://evil.example", "Cookie", cookie}, 401, missingToken, missingChallenge},
		{"from an origin that CORS allows", []string{"Origin", "https://app.example.com", "Sec-Fetch-Site", "cross-site", "Cookie", cookie}, 401, missingToken, missingChallenge},
		{"from an origin that CORS allows, old browser", []string{"Origin", "https://app.example.com", "Cookie", cookie}, 401, missingToken, missingChallenge},
		{"a bad token", []string{"Cookie", "session=abc"}, 401, harness.InvalidToken, harness.InvalidChallenge},
		{"empty", []string{"Cookie", "session="}, 401, missingToken, missingChallenge},
		{"beside a header, which counts", []string{"Authorization", "Bearer abc", "Cookie", cookie}, 401, harness.InvalidToken, harness.InvalidChallenge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{harness.StreamPath("1"), harness.StatusPath("1")} {
				s := i.Open(t, path, "", tt.headers...)
				if s.Response.StatusCode != tt.status {
					t.Errorf("%s: %d, want %d", path, s.Response.StatusCode, tt.status)
				}
				if tt.status == http.StatusOK {
					if path == harness.StreamPath("1") {
						s.WantSoFar(t, harness.FirstEvent)
					}
					s.Cancel()
					continue
				}
				i.Ask(t, "GET", path, tt.headers...).WantRefusal(t, tt.status, tt.body, tt.challenge)
			}
		})
	}
}
