package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer publishes a key set, as an identity provider does.
type Issuer struct {
	URL  string
	mu   sync.Mutex
	keys []map[string]string
	hits int
	// trouble answers instead of the keys while it is set; it is called without mu.
	trouble http.HandlerFunc
}

// NewIssuer serves keys as a JWKS over HTTP until the end of the test.
func NewIssuer(t testing.TB, keys ...map[string]string) *Issuer {
	t.Helper()
	iss := &Issuer{keys: keys}
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

// Publish replaces the keys.
func (iss *Issuer) Publish(keys ...map[string]string) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.keys = keys
}

// Misbehave makes the issuer answer in another way; nil: as it should.
func (iss *Issuer) Misbehave(trouble http.HandlerFunc) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.trouble = trouble
}

// Asked counts the requests for the keys.
func (iss *Issuer) Asked() int {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.hits
}

// Env has serve trust the issuer.
func (iss *Issuer) Env() []string {
	return []string{"JWT_JWKS_URL=" + iss.URL, "JWT_ISSUER=https://issuer.example", "JWT_AUDIENCE=auditstream"}
}

// RSAKey makes a key, and its public part as it is in a JWKS.
func RSAKey(t testing.TB, kid string) (*rsa.PrivateKey, map[string]string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	NoError(t, err)
	return key, map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": Base64URL(key.N.Bytes()), "e": "AQAB"}
}

// ECKey makes a key, and its public part as it is in a JWKS.
func ECKey(t testing.TB, kid string) (*ecdsa.PrivateKey, map[string]string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	NoError(t, err)
	point, err := key.PublicKey.Bytes() // 4, x, y
	NoError(t, err)
	return key, map[string]string{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": Base64URL(point[1:33]), "y": Base64URL(point[33:])}
}

// Base64URL encodes as the parts of a token are.
func Base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// IssuedToken makes a token of alice's that the issuer could have made, but for what claims say.
func IssuedToken(t testing.TB, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"iss": "https://issuer.example", "aud": "auditstream"}
	maps.Copy(c, claims)
	header := map[string]any{}
	if kid != "" {
		header["kid"] = kid
	}
	return SignToken(t, method, key, header, c)
}
