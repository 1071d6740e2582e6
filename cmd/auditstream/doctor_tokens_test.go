package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"auditstream/internal/testkit"

	"github.com/MicahParks/jwkset"
)

func TestDoctorFindsWrongTokenConfiguration(t *testing.T) {
	t.Parallel()
	keys := keySet(t, elliptic.P256(), elliptic.P384())
	useless := keySet(t, elliptic.P384())
	page := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(page.Close)
	jwks := func(address string) []string {
		return []string{"--jwt-jwks-url=" + address, "--jwt-issuer=me", "--jwt-audience=you"}
	}
	type test struct {
		args []string
		want []string // in a healthy answer no FAIL among them
	}
	testkit.Each(t, map[string]test{
		"nothing":      {nil, []string{"FAIL  tokens: no way to verify tokens"}},
		"short secret": {[]string{"--jwt-secret=geheimnis"}, []string{"FAIL  tokens: JWT_SECRET: the key has 9 bytes, and HS256 needs at least 32", "openssl rand"}},
		"placeholder":  {[]string{"--jwt-secret=changeme-changeme-changeme-changeme"}, []string{"FAIL  tokens: JWT_SECRET: the key begins with"}},
		"keys reachable": {
			jwks(keys + "?key=geheimnis"),
			[]string{`ok    tokens: RS256 and ES256 with the keys of JWT_JWKS_URL; iss must be "me" and aud "you"`,
				"ok    JWT_JWKS_URL: 1 of 2 keys can verify RS256 or ES256; fetched in "},
		},
		"keys of no use": {jwks(useless), []string{"FAIL  JWT_JWKS_URL: none of its 1 keys can verify"}},
		"keys left out": {
			jwks(keys),
			[]string{"warn  JWT_JWKS_URL: a key is left out: kid \"P-384\": crv is \"P-384\"; ES256 has P-256"},
		},
		"another claim for the audience": {append(jwks(keys), "--jwt-audience-claim=client_id", "--jwt-user-claim=uid"),
			[]string{`iss must be "me" and client_id "you"; the user is the claim "uid"`}},
		"a claim that is none":     {append(jwks(keys), "--jwt-audience-claim=sub"), []string{`FAIL  tokens: JWT_AUDIENCE_CLAIM: invalid claim "sub"; give aud, client_id or azp`}},
		"a user that is no user":   {[]string{"--jwt-secret=" + strings.Repeat("k", 40), "--jwt-user-claim=exp"}, []string{`FAIL  tokens: JWT_USER_CLAIM: the claim "exp" names no user`}},
		"a secret in quotes":       {[]string{"--jwt-secret='geheimnis" + strings.Repeat("k", 40) + "'"}, []string{"warn  tokens: JWT_SECRET is in quotes", "ok    tokens: HS256"}},
		"a line break in a secret": {[]string{"--jwt-secret=geheimnis" + strings.Repeat("k", 40) + "\n"}, []string{"warn  tokens: JWT_SECRET ends with white space", "ok    tokens: HS256"}},
		"keys unreachable":         {jwks("http://127.0.0.1:1/?key=geheimnis"), []string{"FAIL  JWT_JWKS_URL: fetch from 127.0.0.1:1: ", "Without it no RS256"}},
		"no keys there":            {jwks(page.URL), []string{"FAIL  JWT_JWKS_URL: ", "404 Not Found"}},
		"keys without https":       {jwks("http://example.com/keys"), []string{"FAIL  tokens: JWT_JWKS_URL", "https"}},
		"keys, wrong secret": {
			append(jwks(keys), "--jwt-secret=geheimnis"),
			[]string{"FAIL  tokens: JWT_SECRET", "ok    JWT_JWKS_URL: 1 of 2 keys"},
		},
	}, func(t *testing.T, _ string, c test) {
		got := command(t, append([]string{"doctor"}, c.args...)...).want(t, exitFailed) // there is no database
		mustContain(t, got.out, append(c.want, "FAIL  DATABASE_URL is not set")...)
		mustNotContain(t, got.out, "geheimnis")
	})
}

// keySet serves a key set with a public key on each curve, and returns its address.
func keySet(t testing.TB, curves ...elliptic.Curve) string {
	t.Helper()
	var set jwkset.JWKSMarshal
	for _, curve := range curves {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		testkit.NoError(t, err)
		jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: curve.Params().Name}})
		testkit.NoError(t, err)
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	body, err := json.Marshal(set)
	testkit.NoError(t, err)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// token signs the claims that serve requires with the same settings.
func TestTokenSignsWhatServeLooksFor(t *testing.T) {
	t.Parallel()
	key := "--jwt-secret=" + strings.Repeat("k", 40)
	for _, tc := range []struct{ args, want string }{
		{"--sub=7", `"sub":"7"`},
		{"--sub=7 --jwt-user-claim=https://app.example/uid", `"https://app.example/uid":"7"`},
		{"--claim=user_id=9007199254740993 --jwt-user-claim=user_id", `"user_id":9007199254740993`},
		{"--sub=7 --jwt-audience=us --jwt-audience-claim=client_id --jwt-issuer=me", `"client_id":"us","exp":`},
		{"--sub=7 --claim=a,b=c=d --claim=x=[1,true]", `"a,b":"c=d","exp":`},
		{"--email=a@b.c --jwt-user-claim=email", `"email":"a@b.c"`},
		{"--email=a@b.c --claim=email_verified=false", `"email_verified":false`},
	} {
		token := strings.TrimSpace(command(t, append([]string{"token", key}, strings.Fields(tc.args)...)...).want(t, 0).out)
		claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		if err != nil || !strings.Contains(string(claims), tc.want) {
			t.Errorf("%s: %s, %v, want %s", tc.args, claims, err, tc.want)
		}
	}
	for args, want := range map[string]string{
		"--claim=role=admin":                      "whose token?",
		"--sub=7 --claim=admin":                   `invalid --claim "admin": want NAME=VALUE`,
		"--sub=7 --claim==x":                      `invalid --claim "=x": want NAME=VALUE`,
		"--sub=7 --jwt-audience-claim=azp":        "JWT_AUDIENCE_CLAIM without JWT_AUDIENCE",
		"--sub=7 --jwt-user-claim=email_verified": "names no user",
	} {
		mustContain(t, command(t, append([]string{"token", key}, strings.Fields(args)...)...).want(t, exitUsage).stderr, want)
	}
}
