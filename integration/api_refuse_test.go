package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// answer is a whole answer that is no stream.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// ask makes a request with headers given as pairs; an Authorization header is one of them.
func (i *instance) ask(t testing.TB, method, path string, headers ...string) answer {
	t.Helper()
	r := request(t, t.Context(), i.URL+path, "", headers...)
	r.Method = method
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, readAll(t, resp.Body)}
}

// wantRefusal compares an answer with the literal status, body and WWW-Authenticate of a refusal.
func (a answer) wantRefusal(t testing.TB, status int, body, challenge string) {
	t.Helper()
	if a.Status != status || a.Body != body {
		t.Errorf("answer %d %s, want %d %s", a.Status, a.Body, status, body)
	}
	if got := a.Header.Get("WWW-Authenticate"); got != challenge {
		t.Errorf("WWW-Authenticate: %s\nwant              %s", got, challenge)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Content-Length": fmt.Sprint(len(body)),
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

const (
	missingToken     = `{"error":"Missing authentication token"}`
	invalidToken     = `{"error":"Invalid authentication token"}`
	malformedAuth    = `{"error":"Malformed Authorization header: send one of the form 'Bearer TOKEN'"}`
	badAuditID       = `{"error":"Invalid audit_id: give a whole number from 1 to 9223372036854775807"}`
	crossUser        = `{"error":"Cross-user access denied"}`
	auditNotFound    = `{"error":"Audit not found"}`
	missingChallenge = `Bearer realm="auditstream"`
	invalidChallenge = `Bearer realm="auditstream", error="invalid_token", error_description="The access token is malformed, expired or not meant for this service"`
	inURLChallenge   = `Bearer realm="auditstream", error="invalid_token", error_description="A token in the URL is refused: send it in the Authorization header"`
	malformedHeader  = `Bearer realm="auditstream", error="invalid_request", error_description="Malformed or repeated Authorization header"`
)

// sign makes a token with a method, a key and header fields of the test's choice.
func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		c[name] = value
	}
	tok := jwt.NewWithClaims(method, c)
	for name, value := range header {
		tok.Header[name] = value
	}
	signed, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return remember(signed)
}

func TestAPIRefusals(t *testing.T) { overBoth(t, testAPIRefusals) }

func testAPIRefusals(t *testing.T) {
	db := newDatabase(t)
	i := serve(t, db.Serve)
	id := db.insert(t, "status, progress", "'running', 1")
	foreign := db.sql(t, "insert into audits (url, user_id) values ('https://example.com', 'bob') returning id")
	paths := map[string]func(string) string{"stream": streamPath, "status": statusPath}
	good := "Bearer " + alice(t)

	t.Run("no such row, or not hers", func(t *testing.T) {
		for name, path := range paths {
			t.Run(name, func(t *testing.T) {
				for _, none := range []string{"4711", "2147483648", "9223372036854775807"} {
					i.ask(t, "GET", path(none), "Authorization", good).wantRefusal(t, 404, auditNotFound, "")
				}
				i.ask(t, "GET", path(foreign), "Authorization", good).wantRefusal(t, 403, crossUser, "")
			})
		}
	})
	t.Run("audit_id", func(t *testing.T) {
		for name, path := range paths {
			for _, bad := range []string{
				"0", "-1", "+1", "01", "1.5", "1.0", "1e2", "0x1", "abc", "1a", "%201", "1%20", "%00", "1;drop", "1,2", "null",
				"9223372036854775808", "18446744073709551617", "%D9%A1", "%EF%BC%91", strings.Repeat("9", 400),
			} {
				t.Run(name+" "+bad[:min(len(bad), 20)], func(t *testing.T) {
					i.ask(t, "GET", path(bad), "Authorization", good).wantRefusal(t, 400, badAuditID, "")
				})
			}
		}
	})
	t.Run("Authorization", func(t *testing.T) {
		ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		head, payload, signature := cut(t, alice(t))
		_, bobs, _ := cut(t, token(t, jwt.MapClaims{"sub": "bob"}))
		now := time.Now()
		key := []byte(secret)
		for _, tt := range []struct {
			name            string
			headers         []string
			status          int
			body, challenge string
		}{
			{"none", nil, 401, missingToken, missingChallenge},
			{"another scheme", []string{"Basic YWxpY2U6c2VjcmV0"}, 401, missingToken, missingChallenge},
			{"empty", []string{""}, 400, malformedAuth, malformedHeader},
			{"scheme alone", []string{"Bearer"}, 400, malformedAuth, malformedHeader},
			{"scheme and blanks", []string{"Bearer   "}, 400, malformedAuth, malformedHeader},
			{"two tokens", []string{good + " " + alice(t)}, 400, malformedAuth, malformedHeader},
			{"two in a list", []string{good + ", " + good}, 400, malformedAuth, malformedHeader},
			{"quoted", []string{`Bearer "` + alice(t) + `"`}, 400, malformedAuth, malformedHeader},
			{"repeated", []string{good, good}, 400, malformedAuth, malformedHeader},
			{"repeated with another scheme", []string{good, "Basic YWxpY2U6c2VjcmV0"}, 400, malformedAuth, malformedHeader},
			{"not a JWT", []string{"Bearer abc"}, 401, invalidToken, invalidChallenge},
			{"two parts", []string{"Bearer " + head + "." + payload}, 401, invalidToken, invalidChallenge},
			{"no signature", []string{"Bearer " + head + "." + payload + "."}, 401, invalidToken, invalidChallenge},
			{"somebody else's claims", []string{"Bearer " + head + "." + bobs + "." + signature}, 401, invalidToken, invalidChallenge},
			{"too long", []string{"Bearer " + token(t, jwt.MapClaims{"sub": "alice", "pad": strings.Repeat("x", 9000)})}, 401, invalidToken, invalidChallenge},
			{"alg none", []string{"Bearer " + sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil)}, 401, invalidToken, invalidChallenge},
			{"alg none in capitals", []string{"Bearer " + sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, map[string]any{"alg": "NONE"}, nil)}, 401, invalidToken, invalidChallenge},
			{"alg HS512", []string{"Bearer " + sign(t, jwt.SigningMethodHS512, key, nil, nil)}, 401, invalidToken, invalidChallenge},
			{"alg that is not configured", []string{"Bearer " + sign(t, jwt.SigningMethodES256, ecKey, nil, nil)}, 401, invalidToken, invalidChallenge},
			{"critical extension", []string{"Bearer " + sign(t, jwt.SigningMethodHS256, key, map[string]any{"crit": []string{"b64"}, "b64": false}, nil)}, 401, invalidToken, invalidChallenge},
			{"another key", []string{"Bearer " + sign(t, jwt.SigningMethodHS256, []byte("another-secret-0123456789-abcdefgh"), nil, nil)}, 401, invalidToken, invalidChallenge},
			{"expired", []string{"Bearer " + token(t, jwt.MapClaims{"sub": "alice", "exp": now.Add(-time.Second).Unix()})}, 401, invalidToken, invalidChallenge},
			{"no exp", []string{"Bearer " + token(t, jwt.MapClaims{"sub": "alice", "exp": nil})}, 401, invalidToken, invalidChallenge},
			{"exp as text", []string{"Bearer " + token(t, jwt.MapClaims{"sub": "alice", "exp": "tomorrow"})}, 401, invalidToken, invalidChallenge},
			{"nbf in the future", []string{"Bearer " + token(t, jwt.MapClaims{"sub": "alice", "nbf": now.Add(24 * time.Hour).Unix()})}, 401, invalidToken, invalidChallenge},
			{"sub that is no text", []string{"Bearer " + token(t, jwt.MapClaims{"sub": 7})}, 401, invalidToken, invalidChallenge},
		} {
			t.Run(tt.name, func(t *testing.T) {
				var headers []string
				for _, h := range tt.headers {
					headers = append(headers, "Authorization", h)
				}
				for _, path := range paths {
					i.ask(t, "GET", path(id), headers...).wantRefusal(t, tt.status, tt.body, tt.challenge)
				}
			})
		}
		for name, ok := range map[string]string{
			"scheme in capitals": "BEARER " + alice(t),
			"nbf in the past":    "Bearer " + token(t, jwt.MapClaims{"sub": "alice", "nbf": now.Add(-time.Minute).Unix()}),
			"nbf a little ahead": "Bearer " + token(t, jwt.MapClaims{"sub": "alice", "nbf": now.Add(2 * time.Second).Unix()}),
			"any iss and aud":    "Bearer " + token(t, jwt.MapClaims{"sub": "alice", "iss": "x", "aud": []string{"y"}}),
		} {
			t.Run("accepted: "+name, func(t *testing.T) {
				if got := i.ask(t, "GET", statusPath(id), "Authorization", ok); got.Status != 200 {
					t.Errorf("answer %d %s, want 200", got.Status, got.Body)
				}
			})
		}
	})
	t.Run("token in the URL", func(t *testing.T) {
		for _, path := range paths {
			for _, name := range []string{"access_token", "token", "jwt", "Authorization", "x"} {
				q := "?" + url.Values{name: {alice(t)}}.Encode()
				i.ask(t, "GET", path(id)+q).wantRefusal(t, 401, invalidToken, inURLChallenge)
				// Not even beside a header: the URL is in logs by now.
				i.ask(t, "GET", path(id)+q, "Authorization", good).wantRefusal(t, 401, invalidToken, inURLChallenge)
			}
		}
	})
	t.Run("method", func(t *testing.T) {
		for _, tt := range []struct{ path, methods, allow string }{
			{streamPath(id), "POST PUT PATCH DELETE OPTIONS HEAD", "GET"},
			{statusPath(id), "POST PUT PATCH DELETE OPTIONS", "GET, HEAD"},
			{"/healthz", "POST PUT PATCH DELETE OPTIONS", "GET, HEAD"},
		} {
			for method := range strings.FieldsSeq(tt.methods) {
				t.Run(method+" "+tt.path, func(t *testing.T) {
					got := i.ask(t, method, tt.path, "Authorization", good)
					body := `{"error":"Method not allowed: use ` + tt.allow + `"}`
					if method == "HEAD" {
						body = ""
						got.Header.Set("Content-Length", "0") // of what GET would have sent
					}
					got.wantRefusal(t, 405, body, "")
					if allow := got.Header.Get("Allow"); allow != tt.allow {
						t.Errorf("Allow: %s, want %s", allow, tt.allow)
					}
				})
			}
		}
	})
	t.Run("unknown path", func(t *testing.T) {
		for _, path := range []string{
			"/", "/api/v1", "/api/v1/audits/" + id, streamPath(id) + "/", "/api/v1/sse/audits//progress", "/api/v2/sse/audits/" + id + "/progress",
			"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/api/v1/sse/audits/1/../" + id + "/progress",
		} {
			i.ask(t, "GET", path, "Authorization", good).wantRefusal(t, 404, `{"error":"Not found"}`, "")
		}
	})
}

// cut returns the three parts of a token.
func cut(t testing.TB, token string) (head, payload, signature string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token of %d parts", len(parts))
	}
	return parts[0], parts[1], parts[2]
}

func TestAPIOwnership(t *testing.T) { overBoth(t, testAPIOwnership) }

func testAPIOwnership(t *testing.T) {
	db := newDatabase(t)
	i := serve(t, db.Serve)
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
		{"email without sub", "null", "'alice@example.com'", jwt.MapClaims{"email": "alice@example.com"}, 200},
		{"email in any case", "null", "'Alice@Example.COM'", jwt.MapClaims{"email": "aLICE@eXAMPLE.com"}, 200},
		{"email beyond ASCII", "null", "'JOSÉ@example.com'", jwt.MapClaims{"email": "josé@example.com"}, 200},
		{"a letter that only looks like k", "null", "'mike@example.com'", jwt.MapClaims{"email": "mi\u212ae@example.com"}, 403},
		{"another email", "null", "'alice@example.com'", jwt.MapClaims{"email": "bob@example.com"}, 403},
		{"verified", "null", "'a@example.com'", jwt.MapClaims{"email": "a@example.com", "email_verified": true}, 200},
		{"verified as text", "null", "'a@example.com'", jwt.MapClaims{"email": "a@example.com", "email_verified": "true"}, 200},
		{"not verified", "null", "'a@example.com'", jwt.MapClaims{"email": "a@example.com", "email_verified": false}, 403},
		{"not verified as text", "null", "'a@example.com'", jwt.MapClaims{"email": "a@example.com", "email_verified": "false"}, 403},
		{"not verified does not matter with user_id", "'alice'", "null", jwt.MapClaims{"sub": "alice", "email_verified": false}, 200},
		{"user_id beats email", "'bob'", "'alice@example.com'", jwt.MapClaims{"sub": "alice", "email": "alice@example.com"}, 403},
		{"user_id beats another email", "'alice'", "'bob@example.com'", jwt.MapClaims{"sub": "alice", "email": "alice@example.com"}, 200},
		{"neither", "null", "null", jwt.MapClaims{"sub": "alice", "email": "alice@example.com"}, 403},
		{"neither, and nobody asks", "null", "null", jwt.MapClaims{}, 403},
		{"empty matches nothing", "''", "''", jwt.MapClaims{"sub": "", "email": ""}, 403},
		{"nobody asks", "'alice'", "'alice@example.com'", jwt.MapClaims{}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := db.sql(t, "insert into audits (url, status, user_id, user_email) values ('https://example.com', 'completed', "+tt.userID+", "+tt.email+") returning id")
			for _, path := range []string{statusPath(id), streamPath(id)} {
				got := i.ask(t, "GET", path, "Authorization", "Bearer "+token(t, tt.claims))
				if got.Status != tt.want {
					t.Errorf("%s: %d %s, want %d", path, got.Status, got.Body, tt.want)
				}
				if tt.want == 403 {
					got.wantRefusal(t, 403, crossUser, "")
				}
			}
		})
	}
}
