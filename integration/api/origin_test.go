package api

import (
	"maps"
	"net/http"
	"testing"

	"auditstream/integration/harness"
)

func TestAPICORS(t *testing.T) { harness.OverHTTP1And2(t, testAPICORS) }

func testAPICORS(t *testing.T) {
	i := harness.Serve(t, harness.NewFirstAuditDatabase(t).Serve, "CORS_ALLOWED_ORIGINS=https://app.example.com, http://localhost:5173")
	for origin, allowed := range map[string]bool{
		"https://app.example.com": true, "http://localhost:5173": true, "https://evil.example": false, "https://app.example.com.evil.example": false,
		"http://app.example.com": false, "https://app.example.com:444": false, "null": false,
	} {
		want := map[string]string{}
		if allowed {
			want = map[string]string{"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Etag, Retry-After, Www-Authenticate, Auditstream-Answer"}
		}
		if got := i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1"), "Origin", origin).CORSHeaders(); !maps.Equal(got, want) {
			t.Errorf("from %s: %v, want %v", origin, got, want)
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
				harness.Equal(t, s.Response.StatusCode, tt.status, path)
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
