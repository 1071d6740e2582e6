package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

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
	cases := map[string]struct {
		args []string
		want []string // in a healthy answer no FAIL among them
	}{
		"nothing":      {nil, []string{"FAIL  tokens: no way to verify tokens"}},
		"short secret": {[]string{"--jwt-secret=geheimnis"}, []string{"FAIL  tokens: JWT_SECRET: the key has 9 bytes, and HS256 needs at least 32", "openssl rand"}},
		"placeholder":  {[]string{"--jwt-secret=changeme-changeme-changeme-changeme"}, []string{"FAIL  tokens: JWT_SECRET: the key begins with"}},
		"keys reachable": {
			jwks(keys + "?key=geheimnis"),
			[]string{`ok    tokens: RS256 and ES256 with the keys of JWT_JWKS_URL; iss must be "me" and aud "you"`,
				"ok    JWT_JWKS_URL: 1 of 2 keys can verify RS256 or ES256; fetched in "},
		},
		"keys of no use":     {jwks(useless), []string{"FAIL  JWT_JWKS_URL: none of its 1 keys can verify"}},
		"keys unreachable":   {jwks("http://127.0.0.1:1/?key=geheimnis"), []string{"FAIL  JWT_JWKS_URL: fetch from 127.0.0.1:1: ", "Without it no RS256"}},
		"no keys there":      {jwks(page.URL), []string{"FAIL  JWT_JWKS_URL: ", "404 Not Found"}},
		"keys without https": {jwks("http://example.com/keys"), []string{"FAIL  tokens: JWT_JWKS_URL", "https"}},
		"keys, wrong secret": {
			append(jwks(keys), "--jwt-secret=geheimnis"),
			[]string{"FAIL  tokens: JWT_SECRET", "ok    JWT_JWKS_URL: 1 of 2 keys"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := command(t, append([]string{"doctor"}, c.args...)...).want(t, exitFailed) // there is no database
			mustContain(t, got.out, append(c.want, "FAIL  DATABASE_URL is not set")...)
			mustNotContain(t, got.out, "geheimnis")
		})
	}
}

// keySet serves a key set with a public key on each curve, and returns its address.
func keySet(t testing.TB, curves ...elliptic.Curve) string {
	t.Helper()
	var set jwkset.JWKSMarshal
	for _, curve := range curves {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: curve.Params().Name}})
		if err != nil {
			t.Fatal(err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	body, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}
