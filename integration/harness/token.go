package harness

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// SignToken makes a token with a method, a key and header fields of the test's choice.
func SignToken(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims jwt.MapClaims) string {
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
	NoError(t, err)
	return Remember(signed)
}

// CutToken returns the three parts of a token.
func CutToken(t testing.TB, token string) (head, payload, signature string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token of %d parts", len(parts))
	}
	return parts[0], parts[1], parts[2]
}

// JWTSecret is the key that the instances verify tokens with.
const JWTSecret = "integration-secret-0123456789-abcdefgh"

// Token signs claims; exp is in an hour unless they say otherwise (nil leaves it out).
func Token(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(JWTSecret))
	NoError(t, err)
	return Remember(signed)
}

// AliceToken is a token of alice's, whose the audits of Database.Insert are.
func AliceToken(t testing.TB) string { return Token(t, jwt.MapClaims{"sub": "alice"}) }

// AliceTokenOf is a token of alice's.
func AliceTokenOf(t testing.TB, key string) string {
	t.Helper()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(key))
	NoError(t, err)
	return Remember(signed)
}
