package api

import (
	"net/url"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

const (
	missingToken     = `{"error":"Missing authentication token"}`
	malformedAuth    = `{"error":"Malformed Authorization header: send one of the form 'Bearer TOKEN'"}`
	badAuditID       = `{"error":"Invalid audit_id: give a whole number from 1 to 9223372036854775807"}`
	auditNotFound    = `{"error":"Audit not found"}`
	missingChallenge = `Bearer realm="auditstream"`
	inURLChallenge   = `Bearer realm="auditstream", error="invalid_token", error_description="A token in the URL is refused: send it in the Authorization header"`
	malformedHeader  = `Bearer realm="auditstream", error="invalid_request", error_description="Malformed or repeated Authorization header"`
)

func TestAPIRefusals(t *testing.T) { harness.OverHTTP1And2(t, testAPIRefusals) }

func testAPIRefusals(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	id := db.Insert(t, "status, progress", "'running', 1")
	foreign := db.SQL(t, "insert into audits (url, user_id) values ('https://example.com', 'bob') returning id")
	paths := map[string]func(string) string{"stream": harness.StreamPath, "status": harness.StatusPath}
	good := "Bearer " + harness.AliceToken(t)

	t.Run("no such row, or not hers", func(t *testing.T) {
		for name, path := range paths {
			t.Run(name, func(t *testing.T) {
				for _, none := range []string{"4711", "2147483648", "9223372036854775807"} {
					i.Ask(t, "GET", path(none), "Authorization", good).WantRefusal(t, 404, auditNotFound, "")
				}
				i.Ask(t, "GET", path(foreign), "Authorization", good).WantRefusal(t, 403, harness.CrossUser, "")
			})
		}
	})
	t.Run("ids", func(t *testing.T) {
		i.Ask(t, "GET", severalPath+"?ids=0", "Authorization", good).
			WantRefusal(t, 400, `{"error":"Invalid ids: give one list of 1 to 100 whole numbers from 1 to 9223372036854775807, separated by commas"}`, "")
		for _, path := range paths {
			i.Ask(t, "GET", path("%D9%A1"), "Authorization", good).WantRefusal(t, 400, badAuditID, "") // a digit, of another script
		}
	})
	t.Run("Authorization", func(t *testing.T) {
		head, payload, signature := harness.CutToken(t, harness.AliceToken(t))
		_, bobs, _ := harness.CutToken(t, harness.Token(t, jwt.MapClaims{"sub": "bob"}))
		now := time.Now()
		for _, tt := range []struct {
			name            string
			headers         []string
			status          int
			body, challenge string
		}{
			{"none", nil, 401, missingToken, missingChallenge},
			{"another scheme", []string{"Basic YWxpY2U6c2VjcmV0"}, 401, missingToken, missingChallenge},
			{"scheme alone", []string{"Bearer"}, 400, malformedAuth, malformedHeader},
			{"two tokens", []string{good + " " + harness.AliceToken(t)}, 400, malformedAuth, malformedHeader},
			{"repeated", []string{good, good}, 400, malformedAuth, malformedHeader},
			{"repeated with another scheme", []string{good, "Basic YWxpY2U6c2VjcmV0"}, 400, malformedAuth, malformedHeader},
			{"not a JWT", []string{"Bearer abc"}, 401, harness.InvalidToken, harness.InvalidChallenge},
			{"no signature", []string{"Bearer " + head + "." + payload + "."}, 401, harness.InvalidToken, harness.InvalidChallenge},
			{"somebody else's claims", []string{"Bearer " + head + "." + bobs + "." + signature}, 401, harness.InvalidToken, harness.InvalidChallenge},
			{"expired", []string{"Bearer " + harness.Token(t, jwt.MapClaims{"sub": "alice", "exp": now.Add(-time.Second).Unix()})}, 401, harness.InvalidToken, harness.InvalidChallenge},
		} {
			t.Run(tt.name, func(t *testing.T) {
				var headers []string
				for _, h := range tt.headers {
					headers = append(headers, "Authorization", h)
				}
				for _, path := range paths {
					i.Ask(t, "GET", path(id), headers...).WantRefusal(t, tt.status, tt.body, tt.challenge)
				}
			})
		}
		for name, ok := range map[string]string{
			"scheme in capitals": "BEARER " + harness.AliceToken(t),
			"nbf in the past":    "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "alice", "nbf": now.Add(-time.Minute).Unix()}),
			"nbf a little ahead": "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "alice", "nbf": now.Add(2 * time.Second).Unix()}),
			"any iss and aud":    "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "alice", "iss": "x", "aud": []string{"y"}}),
		} {
			t.Run("accepted: "+name, func(t *testing.T) {
				i.Ask(t, "GET", harness.StatusPath(id), "Authorization", ok).WantStatus(t, 200)
			})
		}
	})
	t.Run("token in the URL", func(t *testing.T) {
		for _, path := range paths {
			for _, name := range []string{"access_token", "token", "jwt", "Authorization", "x"} {
				q := "?" + url.Values{name: {harness.AliceToken(t)}}.Encode()
				i.Ask(t, "GET", path(id)+q).WantRefusal(t, 401, harness.InvalidToken, inURLChallenge)
				// Not even beside a header: the URL is in logs by now.
				i.Ask(t, "GET", path(id)+q, "Authorization", good).WantRefusal(t, 401, harness.InvalidToken, inURLChallenge)
			}
		}
	})
	t.Run("method", func(t *testing.T) {
		got := i.Ask(t, "POST", harness.StatusPath(id), "Authorization", good)
		got.WantRefusal(t, 405, `{"error":"Method not allowed: use GET, HEAD"}`, "")
		harness.Equal(t, got.Header.Get("Allow"), "GET, HEAD", "Allow")
	})
	t.Run("unknown path", func(t *testing.T) {
		for _, path := range []string{
			"/", "/api/v1", "/api/v1/audits/" + id, harness.StreamPath(id) + "/", "/api/v1/sse/audits//progress", "/api/v2/sse/audits/" + id + "/progress",
			"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/api/v1/sse/audits/1/../" + id + "/progress",
		} {
			i.Ask(t, "GET", path, "Authorization", good).WantRefusal(t, 404, `{"error":"Not found"}`, "")
		}
	})
}

func TestAPIOwnership(t *testing.T) { harness.OverHTTP1And2(t, testAPIOwnership) }

func testAPIOwnership(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	for _, tt := range []struct {
		name          string
		userID, email string // SQL
		claims        jwt.MapClaims
		want          int
	}{
		{"user_id is sub", "'alice'", "null", jwt.MapClaims{"sub": "alice"}, 200},
		{"user_id is somebody else", "'alice'", "null", jwt.MapClaims{"sub": "bob"}, 403},
		{"user_id in another case", "'alice'", "null", jwt.MapClaims{"sub": "Alice"}, 403},
		{"user_id with a blank", "'alice '", "null", jwt.MapClaims{"sub": "alice"}, 403},
		{"sub is the address", "null", "'alice@example.com'", jwt.MapClaims{"sub": "alice@example.com"}, 403},
		{"user_id is the address", "'alice@example.com'", "null", jwt.MapClaims{"sub": "x", "email": "alice@example.com"}, 403},
		{"email", "null", "'alice@example.com'", jwt.MapClaims{"sub": "x", "email": "alice@example.com"}, 200},
		{"email in any case", "null", "'Alice@Example.COM'", jwt.MapClaims{"email": "aLICE@eXAMPLE.com"}, 200},
		{"email beyond ASCII", "null", "'JOSÉ@example.com'", jwt.MapClaims{"email": "josé@example.com"}, 200},
		{"a letter that only looks like k", "null", "'mike@example.com'", jwt.MapClaims{"email": "mi\u212ae@example.com"}, 403},
		{"verified", "null", "'a@example.com'", jwt.MapClaims{"email": "a@example.com", "email_verified": true}, 200},
		{"not verified", "null", "'a@example.com'", jwt.MapClaims{"email": "a@example.com", "email_verified": false}, 403},
		{"not verified does not matter with user_id", "'alice'", "null", jwt.MapClaims{"sub": "alice", "email_verified": false}, 200},
		{"user_id beats email", "'bob'", "'alice@example.com'", jwt.MapClaims{"sub": "alice", "email": "alice@example.com"}, 403},
		{"neither", "null", "null", jwt.MapClaims{"sub": "alice", "email": "alice@example.com"}, 403},
		{"empty matches nothing", "''", "''", jwt.MapClaims{"sub": "", "email": ""}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := db.SQL(t, "insert into audits (url, status, user_id, user_email) values ('https://example.com', 'completed', "+tt.userID+", "+tt.email+") returning id")
			for _, path := range []string{harness.StatusPath(id), harness.StreamPath(id)} {
				got := i.AskAs(t, harness.Token(t, tt.claims), path)
				harness.Equal(t, got.Status, tt.want, path, got.Body)
				if tt.want == 403 {
					got.WantRefusal(t, 403, harness.CrossUser, "")
				}
			}
		})
	}
}
