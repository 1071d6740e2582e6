package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer publishes a key set, as an identity provider does.
type issuer struct {
	URL  string
	mu   sync.Mutex
	keys []map[string]string
	hits int
	// trouble answers instead of the keys while it is set; it is called without mu.
	trouble http.HandlerFunc
}

func newIssuer(t testing.TB, keys ...map[string]string) *issuer {
	t.Helper()
	iss := &issuer{keys: keys}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		iss.mu.Lock()
		defer iss.mu.Unlock()
		iss.hits++
		if trouble := iss.trouble; trouble != nil {
			iss.mu.Unlock()
			defer iss.mu.Lock()
			trouble(w, r)
			return
		}
		if len(iss.keys) == 0 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": iss.keys})
	}))
	t.Cleanup(server.Close)
	iss.URL = server.URL + "/.well-known/jwks.json"
	return iss
}

func (iss *issuer) publish(keys ...map[string]string) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.keys = keys
}

// misbehave makes the issuer answer in another way; nil: as it should.
func (iss *issuer) misbehave(trouble http.HandlerFunc) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.trouble = trouble
}

func (iss *issuer) asked() int {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.hits
}

func (iss *issuer) env() []string {
	return []string{"JWT_JWKS_URL=" + iss.URL, "JWT_ISSUER=https://issuer.example", "JWT_AUDIENCE=auditstream"}
}

func rsaKey(t testing.TB, kid string) (*rsa.PrivateKey, map[string]string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key, map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": b64(key.N.Bytes()), "e": "AQAB"}
}

func ecKey(t testing.TB, kid string) (*ecdsa.PrivateKey, map[string]string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	return key, map[string]string{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:])}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// issued makes a token of alice's that the issuer could have made, but for what claims say.
func issued(t testing.TB, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"iss": "https://issuer.example", "aud": "auditstream"}
	maps.Copy(c, claims)
	header := map[string]any{}
	if kid != "" {
		header["kid"] = kid
	}
	return sign(t, method, key, header, c)
}

func TestAPIJWKS(t *testing.T) { overBoth(t, testAPIJWKS) }

func testAPIJWKS(t *testing.T) {
	db := newFirstAudit(t)
	rs, rsPublic := rsaKey(t, "r1")
	es, esPublic := ecKey(t, "e1")
	strange, _ := rsaKey(t, "r1")
	iss := newIssuer(t, rsPublic, esPublic)
	der, err := x509.MarshalPKIXPublicKey(&rs.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	rs256, es256, hs256 := jwt.SigningMethodRS256, jwt.SigningMethodES256, jwt.SigningMethodHS256

	both := serve(t, db.Serve, iss.env()...)
	keysAlone := serve(t, db.Serve, append(iss.env(), "JWT_SECRET=")...)
	for _, tt := range []struct {
		name            string
		token           string
		both, keysAlone int
	}{
		{"RS256", issued(t, rs256, rs, "r1", nil), 200, 200},
		{"ES256", issued(t, es256, es, "e1", nil), 200, 200},
		{"RS256 without a kid", issued(t, rs256, rs, "", nil), 200, 200},
		{"ES256 without a kid", issued(t, es256, es, "", nil), 200, 200},
		{"HS256 with the secret", issued(t, hs256, []byte(secret), "", nil), 200, 401},
		{"one of several audiences", issued(t, rs256, rs, "r1", jwt.MapClaims{"aud": []string{"other", "auditstream"}}), 200, 200},
		{"for another audience", issued(t, rs256, rs, "r1", jwt.MapClaims{"aud": "other"}), 401, 401},
		{"for no audience", issued(t, rs256, rs, "r1", jwt.MapClaims{"aud": nil}), 401, 401},
		{"of another issuer", issued(t, rs256, rs, "r1", jwt.MapClaims{"iss": "https://other.example"}), 401, 401},
		{"of no issuer", issued(t, rs256, rs, "r1", jwt.MapClaims{"iss": nil}), 401, 401},
		{"HS256 for another audience", issued(t, hs256, []byte(secret), "", jwt.MapClaims{"aud": "other"}), 401, 401},
		{"HS256 of no issuer", issued(t, hs256, []byte(secret), "", jwt.MapClaims{"iss": nil}), 401, 401},
		{"expired", issued(t, rs256, rs, "r1", jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()}), 401, 401},
		{"another key of that kid", issued(t, rs256, strange, "r1", nil), 401, 401},
		{"the kid of another algorithm's key", issued(t, rs256, rs, "e1", nil), 401, 401},
		{"RS512", issued(t, jwt.SigningMethodRS512, rs, "r1", nil), 401, 401},
		{"PS256", issued(t, jwt.SigningMethodPS256, rs, "r1", nil), 401, 401},
		{"HS256 with the public key in PEM", issued(t, hs256, publicPEM, "r1", nil), 401, 401},
		{"HS256 with the public key in DER", issued(t, hs256, der, "r1", nil), 401, 401},
		{"HS256 with the modulus", issued(t, hs256, rs.N.Bytes(), "r1", nil), 401, 401},
		{"none", issued(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "r1", nil), 401, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				i    *instance
				want int
			}{{both, tt.both}, {keysAlone, tt.keysAlone}} {
				got := c.i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+tt.token)
				if got.Status != c.want {
					t.Errorf("answer %d %s, want %d", got.Status, got.Body, c.want)
				}
				if c.want == 401 {
					got.wantRefusal(t, 401, invalidToken, invalidChallenge)
				}
			}
		})
	}
	s := both.watch(t, "1", issued(t, es256, es, "e1", nil))
	s.wantSoFar(t, firstEvent)
	s.cancel()
	if got := iss.asked(); got != 2 {
		t.Errorf("the issuer was asked %d times, want once by each instance", got)
	}
}

// Tokens with made-up key ids must neither hammer the issuer nor keep out the first user of a new key.
func TestAPIKeyRotation(t *testing.T) { overBoth(t, testAPIKeyRotation) }

func testAPIKeyRotation(t *testing.T) {
	db := newFirstAudit(t)
	old, oldPublic := rsaKey(t, "old")
	fresh, freshPublic := rsaKey(t, "new")
	iss := newIssuer(t) // comes up after us
	i := serve(t, db.Serve, append(iss.env(), "JWT_SECRET=")...)
	get := func(token string) answer {
		return i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+token)
	}
	oldToken, newToken := issued(t, jwt.SigningMethodRS256, old, "old", nil), issued(t, jwt.SigningMethodRS256, fresh, "new", nil)

	withoutKeys := get(oldToken)
	withoutKeys.wantRefusal(t, 503, `{"error":"Signing keys are not available yet"}`, "")
	if withoutKeys.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After while there are no keys")
	}
	iss.publish(oldPublic)
	if got := get(oldToken); got.Status != 200 {
		t.Errorf("after the issuer came up: %d %s, want 200", got.Status, got.Body)
	}

	iss.publish(freshPublic)
	before := iss.asked()
	var forgers sync.WaitGroup
	for range 20 {
		forged := issued(t, jwt.SigningMethodRS256, old, "forged-"+rand.Text(), nil)
		forgers.Go(func() {
			get(forged).wantRefusal(t, 401, invalidToken, invalidChallenge)
		})
	}
	if got := get(newToken); got.Status != 200 {
		t.Errorf("first token of the new key: %d %s, want 200", got.Status, got.Body)
	}
	forgers.Wait()
	if asked := iss.asked() - before; asked > 3 {
		t.Errorf("20 made-up key ids asked the issuer %d times, want 3 at most", asked)
	}
	get(oldToken).wantRefusal(t, 401, invalidToken, invalidChallenge) // the issuer has withdrawn its key
	iss.publish()
	if got := get(newToken); got.Status != 200 {
		t.Errorf("while the issuer is down: %d %s, want 200", got.Status, got.Body)
	}
}

func TestAPIPreviousSecret(t *testing.T) { overBoth(t, testAPIPreviousSecret) }

func testAPIPreviousSecret(t *testing.T) {
	db := newFirstAudit(t)
	const current, previous, third = "current-secret-0123456789-abcdefgh", "previous-secret-0123456789-abcdefg", "third-secret-0123456789-abcdefghij"
	i := serve(t, db.Serve, "JWT_SECRET="+current, "JWT_SECRET_PREVIOUS="+previous)
	for key, want := range map[string]int{current: 200, previous: 200, third: 401, secret: 401} {
		got := i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+sign(t, jwt.SigningMethodHS256, []byte(key), nil, nil))
		if got.Status != want {
			t.Errorf("%s: %d %s, want %d", key, got.Status, got.Body, want)
		}
	}
}
