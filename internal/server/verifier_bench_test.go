package server

import (
	"log/slog"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// BenchmarkVerify measures what every request begins with: HS256 against one and two secrets, RS256 against a key set,
// and a token that is remembered.
func BenchmarkVerify(b *testing.B) {
	secret := func(cfg AuthConfig) *verifier {
		v, err := newVerifier(b.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	hs256, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "alice", "email": "alice@example.com", "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(testSecret))
	if err != nil {
		b.Fatal(err)
	}
	issuer := newIssuer(b)
	rs256 := issuer.token(b, "one")
	for _, c := range []struct {
		name, token string
		verifier    *verifier
	}{
		{"HS256", hs256, secret(AuthConfig{Secret: testSecret})},
		{"HS256previous", hs256, secret(AuthConfig{Secret: "this-is-the-new-secret-of-32-bytes", PreviousSecret: testSecret})},
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
