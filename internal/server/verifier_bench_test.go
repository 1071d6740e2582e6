package server

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// BenchmarkVerify measures what every request begins with: HS256 against one and two secrets, RS256 against a key set,
// and a token that is remembered.
func BenchmarkVerify(b *testing.B) {
	hs256 := sign(b, jwt.MapClaims{"sub": "alice", "email": "alice@example.com", "exp": time.Now().Add(time.Hour).Unix()})
	issuer := newIssuer(b)
	rs256 := issuer.token(b, "one")
	for _, c := range []struct {
		name, token string
		verifier    *verifier
	}{
		{"HS256", hs256, verifierOf(b, AuthConfig{Secret: testSecret})},
		{"HS256previous", hs256, verifierOf(b, AuthConfig{Secret: "this-is-the-new-secret-of-32-bytes", PreviousSecret: testSecret})},
		{"RS256", rs256, issuer.verifier(b)},
		{"HS256cached", hs256, cachedVerifier(b, AuthConfig{Secret: testSecret}, 1)},
		{"RS256cached", rs256, cachedVerifier(b, issuer.config(), 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.verifier.verify(b.Context(), c.token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
