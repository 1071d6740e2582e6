package api

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

func TestAPIJWKS(t *testing.T) { harness.OverHTTP1And2(t, testAPIJWKS) }

func testAPIJWKS(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	rs, rsPublic := harness.RSAKey(t, "r1")
	es, esPublic := harness.ECKey(t, "e1")
	strange, _ := harness.RSAKey(t, "r1")
	iss := harness.NewIssuer(t, rsPublic, esPublic)
	der, err := x509.MarshalPKIXPublicKey(&rs.PublicKey)
	harness.NoError(t, err)
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	rs256, es256, hs256 := jwt.SigningMethodRS256, jwt.SigningMethodES256, jwt.SigningMethodHS256

	both := harness.Serve(t, db.Serve, iss.Env()...)
	keysAlone := harness.Serve(t, db.Serve, append(iss.Env(), "JWT_SECRET=")...)
	for _, tt := range []struct {
		name            string
		token           string
		both, keysAlone int
	}{
		{"RS256", harness.IssuedToken(t, rs256, rs, "r1", nil), 200, 200},
		{"ES256", harness.IssuedToken(t, es256, es, "e1", nil), 200, 200},
		{"RS256 without a kid", harness.IssuedToken(t, rs256, rs, "", nil), 200, 200},
		{"ES256 without a kid", harness.IssuedToken(t, es256, es, "", nil), 200, 200},
		{"HS256 with the secret", harness.IssuedToken(t, hs256, []byte(harness.JWTSecret), "", nil), 200, 401},
		{"one of several audiences", harness.IssuedToken(t, rs256, rs, "r1", jwt.MapClaims{"aud": []string{"other", "auditstream"}}), 200, 200},
		{"for another audience", harness.IssuedToken(t, rs256, rs, "r1", jwt.MapClaims{"aud": "other"}), 401, 401},
		{"for no audience", harness.IssuedToken(t, rs256, rs, "r1", jwt.MapClaims{"aud": nil}), 401, 401},
		{"of another issuer", harness.IssuedToken(t, rs256, rs, "r1", jwt.MapClaims{"iss": "https://other.example"}), 401, 401},
		{"of no issuer", harness.IssuedToken(t, rs256, rs, "r1", jwt.MapClaims{"iss": nil}), 401, 401},
		{"HS256 for another audience", harness.IssuedToken(t, hs256, []byte(harness.JWTSecret), "", jwt.MapClaims{"aud": "other"}), 401, 401},
		{"HS256 of no issuer", harness.IssuedToken(t, hs256, []byte(harness.JWTSecret), "", jwt.MapClaims{"iss": nil}), 401, 401},
		{"expired", harness.IssuedToken(t, rs256, rs, "r1", jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()}), 401, 401},
		{"another key of that kid", harness.IssuedToken(t, rs256, strange, "r1", nil), 401, 401},
		{"the kid of another algorithm's key", harness.IssuedToken(t, rs256, rs, "e1", nil), 401, 401},
		{"RS512", harness.IssuedToken(t, jwt.SigningMethodRS512, rs, "r1", nil), 401, 401},
		{"PS256", harness.IssuedToken(t, jwt.SigningMethodPS256, rs, "r1", nil), 401, 401},
		{"HS256 with the public key in PEM", harness.IssuedToken(t, hs256, publicPEM, "r1", nil), 401, 401},
		{"HS256 with the public key in DER", harness.IssuedToken(t, hs256, der, "r1", nil), 401, 401},
		{"HS256 with the modulus", harness.IssuedToken(t, hs256, rs.N.Bytes(), "r1", nil), 401, 401},
		{"none", harness.IssuedToken(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "r1", nil), 401, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				i    *harness.Instance
				want int
			}{{both, tt.both}, {keysAlone, tt.keysAlone}} {
				got := c.i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+tt.token)
				if got.Status != c.want {
					t.Errorf("answer %d %s, want %d", got.Status, got.Body, c.want)
				}
				if c.want == 401 {
					got.WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge)
				}
			}
		})
	}
	s := both.Watch(t, "1", harness.IssuedToken(t, es256, es, "e1", nil))
	s.WantSoFar(t, harness.FirstEvent)
	s.Cancel()
	if got := iss.Asked(); got != 2 {
		t.Errorf("the issuer was asked %d times, want once by each instance", got)
	}
}

// Tokens with made-up key ids must neither hammer the issuer nor keep out the first user of a new key.
func TestAPIKeyRotation(t *testing.T) { harness.OverHTTP1And2(t, testAPIKeyRotation) }

func testAPIKeyRotation(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	old, oldPublic := harness.RSAKey(t, "old")
	fresh, freshPublic := harness.RSAKey(t, "new")
	iss := harness.NewIssuer(t) // comes up after us
	i := harness.Serve(t, db.Serve, append(iss.Env(), "JWT_SECRET=")...)
	get := func(token string) harness.Answer {
		return i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+token)
	}
	oldToken, newToken := harness.IssuedToken(t, jwt.SigningMethodRS256, old, "old", nil), harness.IssuedToken(t, jwt.SigningMethodRS256, fresh, "new", nil)

	withoutKeys := get(oldToken)
	withoutKeys.WantRefusal(t, 503, `{"error":"Signing keys are not available yet"}`, "")
	if withoutKeys.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After while there are no keys")
	}
	iss.Publish(oldPublic)
	if got := get(oldToken); got.Status != 200 {
		t.Errorf("after the issuer came up: %d %s, want 200", got.Status, got.Body)
	}

	iss.Publish(freshPublic)
	before := iss.Asked()
	var forgers sync.WaitGroup
	for range 20 {
		forged := harness.IssuedToken(t, jwt.SigningMethodRS256, old, "forged-"+rand.Text(), nil)
		forgers.Go(func() {
			get(forged).WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge)
		})
	}
	if got := get(newToken); got.Status != 200 {
		t.Errorf("first token of the new key: %d %s, want 200", got.Status, got.Body)
	}
	forgers.Wait()
	if asked := iss.Asked() - before; asked > 3 {
		t.Errorf("20 made-up key ids asked the issuer %d times, want 3 at most", asked)
	}
	get(oldToken).WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge) // the issuer has withdrawn its key
	iss.Publish()
	if got := get(newToken); got.Status != 200 {
		t.Errorf("while the issuer is down: %d %s, want 200", got.Status, got.Body)
	}
}

func TestAPIPreviousSecret(t *testing.T) { harness.OverHTTP1And2(t, testAPIPreviousSecret) }

func testAPIPreviousSecret(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	const current, previous, third = "current-secret-0123456789-abcdefgh", "previous-secret-0123456789-abcdefg", "third-secret-0123456789-abcdefghij"
	i := harness.Serve(t, db.Serve, "JWT_SECRET="+current, "JWT_SECRET_PREVIOUS="+previous)
	for key, want := range map[string]int{current: 200, previous: 200, third: 401, harness.JWTSecret: 401} {
		got := i.Ask(t, "GET", harness.StatusPath("1"), "Authorization", "Bearer "+harness.SignToken(t, jwt.SigningMethodHS256, []byte(key), nil, nil))
		if got.Status != want {
			t.Errorf("%s: %d %s, want %d", key, got.Status, got.Body, want)
		}
	}
}
