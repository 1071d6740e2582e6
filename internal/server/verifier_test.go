package server

import (
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// issuer is an identity provider with one key at a time.
type issuer struct {
	url     string
	key     atomic.Pointer[rsa.PrivateKey]
	kid     atomic.Pointer[string]
	fetches atomic.Int32
	answer  atomic.Pointer[http.HandlerFunc] // instead of the keys
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := new(issuer)
	i.rotate(t, "one")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		if answer := i.answer.Load(); answer != nil {
			(*answer)(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{jwkOf(&i.key.Load().PublicKey, *i.kid.Load())}})
	}))
	t.Cleanup(func() { server.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	i.url = server.URL
	return i
}

func (i *issuer) rotate(t testing.TB, kid string) {
	t.Helper()
	i.key.Store(rsaKey(t))
	i.kid.Store(&kid)
}

func (i *issuer) token(t testing.TB, kid string) string {
	t.Helper()
	claims, header := claimsOf("alice"), map[string]any{"kid": kid}
	claims["aud"] = []string{"other", "auditstream"}
	if kid == "" {
		header = nil
	}
	return signed(t, jwt.SigningMethodRS256, i.key.Load(), claims, header)
}

func (i *issuer) config() AuthConfig {
	return AuthConfig{Secret: testSecret, JWKSURL: i.url, Issuer: "https://id.example", Audience: "auditstream"}
}

func (i *issuer) verifier(t testing.TB) *verifier {
	t.Helper()
	return verifierOf(t, i.config())
}

func TestVerifySecret(t *testing.T) {
	t.Parallel()
	v := verifierOf(t, AuthConfig{Secret: testSecret, PreviousSecret: strings.Repeat("p", 32), Issuer: "https://id.example", Audience: "auditstream"})
	now, good := time.Now(), claimsOf("alice")
	set := func(name string, value any) jwt.MapClaims {
		claims := maps.Clone(good)
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return claims
	}
	for name, tc := range map[string]struct {
		method jwt.SigningMethod
		key    any
		claims jwt.MapClaims
		header map[string]any
		want   bool
	}{
		"good":                   {claims: good, want: true},
		"previous key":           {key: []byte(strings.Repeat("p", 32)), claims: good, want: true},
		"another key":            {key: []byte(strings.Repeat("x", 32)), claims: good},
		"alg none":               {method: jwt.SigningMethodNone, key: jwt.UnsafeAllowNoneSignatureType, claims: good},
		"HS384":                  {method: jwt.SigningMethodHS384, claims: good},
		"no exp":                 {claims: set("exp", nil)},
		"exp 0":                  {claims: set("exp", 0)},
		"expired":                {claims: set("exp", now.Add(-time.Second).Unix())},
		"exp beyond all time":    {claims: set("exp", 1e300)},
		"nbf in the future":      {claims: set("nbf", now.Add(time.Hour).Unix())}, // however late it is tried
		"nbf of a clock ahead":   {claims: set("nbf", now.Add(2*time.Second).Unix()), want: true},
		"another issuer":         {claims: set("iss", "other")},
		"no issuer":              {claims: set("iss", nil)},
		"another audience":       {claims: set("aud", "other")},
		"one of many audiences":  {claims: set("aud", []string{"x", "auditstream"}), want: true},
		"none of many audiences": {claims: set("aud", []string{"x", "y"})},
		"sub is not text":        {claims: set("sub", 7)},
		"a critical extension":   {claims: good, header: map[string]any{"crit": []string{"x"}}},
		"a kid that is a path":   {claims: good, header: map[string]any{"kid": "../../etc/passwd"}, want: true},
		"a kid that is no text":  {claims: good, header: map[string]any{"kid": 7}, want: true},
		"an embedded key is noise": {claims: good, key: []byte(strings.Repeat("x", 32)),
			header: map[string]any{"jwk": map[string]string{"kty": "oct", "k": "eHh4eHh4"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method, key := tc.method, tc.key
			if method == nil {
				method = jwt.SigningMethodHS256
			}
			if key == nil {
				key = []byte(testSecret)
			}
			who, err := v.verify(t.Context(), signed(t, method, key, tc.claims, tc.header))
			if (err == nil) != tc.want {
				t.Fatalf("error %v, want accepted: %v", err, tc.want)
			}
			if err != nil && answerTo(err) != errInvalidToken {
				t.Errorf("got %v, want errInvalidToken", err)
			}
			if err == nil && who.Subject != "alice" {
				t.Errorf("subject %q", who.Subject)
			}
		})
	}
}

func TestClaimOfAnotherCaseIsNotTheClaim(t *testing.T) {
	t.Parallel()
	v := verifierOf(t, AuthConfig{Secret: testSecret})
	exp := time.Now().Add(time.Hour).Unix()
	// In the JSON these come before and after the real ones: capitals sort before small letters.
	who, err := v.verify(t.Context(), sign(t, jwt.MapClaims{
		"SUB": "bob", "sub": "alice", "ſub": "bob", "Email": "bob@b.c", "email": "a@b.c", "emaıl": "bob@b.c",
		"Email_Verified": true, "email_verified": true, "exp": exp, "zSub": "bob",
	}))
	if err != nil || who.Subject != "alice" || who.Email != "a@b.c" {
		t.Errorf("got %q, %q, %v; want alice, a@b.c", who.Subject, who.Email, err)
	}
	who, err = v.verify(t.Context(), sign(t, jwt.MapClaims{"Sub": "bob", "EMAIL": "bob@b.c", "exp": exp}))
	if err != nil || who.Subject != "" || who.Email != "" {
		t.Errorf("without the real claims: got %q, %q, %v; want nobody", who.Subject, who.Email, err)
	}
	if _, err = v.verify(t.Context(), sign(t, jwt.MapClaims{"sub": "alice", "EXP": exp})); answerTo(err) != errInvalidToken {
		t.Errorf("EXP for exp: got %v, want errInvalidToken", err)
	}
}

func TestEmailMustNotBeUnverified(t *testing.T) {
	t.Parallel()
	v := verifierOf(t, AuthConfig{Secret: testSecret})
	for more, want := range map[string]string{
		"": "a@b.c", `,"email_verified":true`: "a@b.c", `,"email_verified":"true"`: "a@b.c", `,"email_verified":null`: "a@b.c", `,"email_verified":false`: "", `,"email_verified":"false"`: "",
		`,"email_verified":"no"`: "", `,"email_verified":"null"`: "", `,"email_verified":0`: "", `,"email_verified":{}`: "",
	} {
		who, err := v.verify(t.Context(), raw(t, expiring(`"email":"a@b.c"`+more)))
		if err != nil || who.Email != want {
			t.Errorf("email%s: %q, %v; want %q", more, who.Email, err, want)
		}
	}
}

func TestPublicKeyIsNoSecret(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	forged := signed(t, jwt.SigningMethodHS256, publicPEM(t, i.key.Load().Public()), claimsOf("alice"), map[string]any{"kid": "one"})
	if _, err := v.verify(t.Context(), forged); answerTo(err) != errInvalidToken {
		t.Errorf("got %v, want errInvalidToken", err)
	}
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
		t.Errorf("a good token: %v", err)
	}
	if _, err := v.verify(t.Context(), i.token(t, "")); err != nil {
		t.Errorf("a token that names no key: %v", err)
	}
	if _, err := v.verify(t.Context(), i.token(t, strings.Repeat("k", jwksMaxKID+1))); answerTo(err) != errInvalidToken {
		t.Errorf("a huge kid: %v", err)
	}
	es256 := signed(t, jwt.SigningMethodES256, ecKey(t), claimsOf("alice"), map[string]any{"kid": "one"})
	if _, err := v.verify(t.Context(), es256); answerTo(err) != errInvalidToken {
		t.Errorf("ES256 with the kid of an RSA key: %v", err)
	}
}

// A rotation must be found at once, and an issuer's wrong answers must not lose the known keys.
func TestRotationAndBadAnswersOfTheIssuer(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	old := i.token(t, "one")
	for name, answer := range map[string]http.HandlerFunc{
		"symmetric keys alone": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[{"kty":"oct","kid":"one","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}`))
		},
		"an empty set": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"an error":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) },
		"a page":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no end": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[`))
			for range 2 * jwksMaxSize / 4096 {
				if _, err := w.Write([]byte(strings.Repeat(" ", 4096))); err != nil {
					return
				}
			}
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://198.51.100.1/keys", http.StatusFound)
		},
	} {
		i.answer.Store(&answer)
		v.keys.started = time.Time{} // as if the last fetch were long ago
		if _, err := v.verify(t.Context(), i.token(t, "unknown")); answerTo(err) != errInvalidToken {
			t.Errorf("%s: an unknown kid: %v", name, err)
		}
		if _, err := v.verify(t.Context(), old); err != nil {
			t.Errorf("%s: the known key is lost: %v", name, err)
		}
	}
	i.answer.Store(nil)
	i.rotate(t, "two")
	v.keys.started = time.Time{}
	if _, err := v.verify(t.Context(), i.token(t, "two")); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := v.verify(t.Context(), old); answerTo(err) != errInvalidToken {
		t.Errorf("the revoked key: %v", err)
	}
}

func TestUnknownKIDsNeitherHammerNorLockOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		var next *KeySet // what a fetch finds; nil: nothing
		k := bareJWKS(func(context.Context) (*KeySet, error) {
			if fetches++; next == nil {
				return nil, errTest
			}
			return next, nil
		})
		start := time.Now()
		var forged sync.WaitGroup
		for range 100 {
			forged.Go(func() { _ = k.fetchForRequest(t.Context()) })
		}
		forged.Wait()
		// The issuer rotates while the forged ones wait: the first user of the new key waits with them and gets in.
		next = keySet(t, map[string]crypto.PublicKey{"new": &ecKey(t).PublicKey})
		for range 100 {
			forged.Go(func() { _ = k.fetchForRequest(t.Context()) })
		}
		testkit.NoError(t, k.fetchForRequest(t.Context()))
		if set := k.set.Load(); set == nil || len(set.byKID["new"]) != 1 {
			t.Errorf("the new key was not found: %v", set)
		}
		forged.Wait()
		if most := int(time.Since(start)/jwksUnknownKID) + 1; fetches > most {
			t.Errorf("%d fetches in %v, want at most %d", fetches, time.Since(start), most)
		}
	})
}

func TestIssuerThatNeverAnsweredIsNobodysFault(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "starting", http.StatusServiceUnavailable) })
	i.answer.Store(&down)
	v := i.verifier(t)
	if _, err := v.verify(t.Context(), i.token(t, "one")); answerTo(err) != errNoKeys {
		t.Errorf("got %v, want errNoKeys: the token may be good", err)
	}
	i.answer.Store(nil)
	v.keys.started = time.Time{}
	if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
		t.Errorf("once the issuer is up: %v", err)
	}
}

func TestAuthConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cfg  AuthConfig
		want string
	}{
		"nothing":              {AuthConfig{}, "JWT_SECRET"},
		"a short secret":       {AuthConfig{Secret: "short"}, "32"},
		"a placeholder":        {AuthConfig{Secret: "changeme-changeme-changeme-changeme"}, "placeholder"},
		"previous alone":       {AuthConfig{PreviousSecret: testSecret, JWKSURL: "https://x/k", Issuer: "i", Audience: "a"}, "JWT_SECRET_PREVIOUS"},
		"http":                 {AuthConfig{JWKSURL: "http://id.example/keys", Issuer: "i", Audience: "a"}, "https"},
		"JWKS for any service": {AuthConfig{JWKSURL: "https://id.example/keys"}, "JWT_AUDIENCE"},
	} {
		if _, err := newVerifier(t.Context(), tc.cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error about %s", name, err, tc.want)
		} else if tc.cfg.Secret != "" && strings.Contains(err.Error(), tc.cfg.Secret) {
			t.Errorf("%s: the error quotes the secret", name)
		}
	}
}

// Such a token made its request wait for 5 s, and 256 of them made all requests wait: no issuer has a key of that name.
func TestKIDThatIsNoneIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	before := i.fetches.Load()
	for _, kid := range []any{nil, "", 7, true, []string{"one"}, map[string]any{"one": 1}} {
		token := signed(t, jwt.SigningMethodRS256, i.key.Load(), claimsOf("alice"), map[string]any{"kid": kid})
		if _, err := v.verify(t.Context(), token); answerTo(err) != errInvalidToken {
			t.Errorf("kid %v: %v, want errInvalidToken", kid, err)
		}
	}
	if got := i.fetches.Load(); got != before {
		t.Errorf("%d fetches, want none", got-before)
	}
}

func TestBlanksAreNobody(t *testing.T) {
	t.Parallel()
	blank := store.NewState(store.Row{ID: "42", Status: "running", UserID: text(" ")})
	mailed := store.NewState(store.Row{ID: "42", Status: "running", UserEmail: text(" \t")})
	for _, state := range []*store.State{blank, mailed} {
		for _, claims := range []jwt.MapClaims{{"sub": " "}, {"email": " \t"}, {"sub": " ", "email": " \t"}, {"sub": " \t"}} {
			claims["exp"] = time.Now().Add(time.Hour).Unix()
			hub, _ := one(state)
			if c := serve(newTestServer(t, hub, nil), get(t, streamPath, "Authorization", "Bearer "+sign(t, claims))); c.status != http.StatusForbidden {
				t.Errorf("%v: %d, want 403", claims, c.status)
			}
		}
	}
}
