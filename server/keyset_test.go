package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func unpadded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func jwkOf(key *rsa.PublicKey, kid string) map[string]any {
	return map[string]any{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": unpadded(key.N.Bytes()), "e": "AQAB"}
}

// with is a key with some members changed; nil: without it.
func with(key map[string]any, members map[string]any) map[string]any {
	key = maps.Clone(key)
	for name, value := range members {
		if key[name] = value; value == nil {
			delete(key, name)
		}
	}
	return key
}

// publish has the issuer answer with these entries, and more text before and after them.
func (i *issuer) publish(t testing.TB, before string, keys []any, after string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, before+string(body)+after)
	})
	i.answer.Store(&answer)
}

// oddKeys are entries that RFC 7517, section 5 has us ignore, made of a good key of another kid, with a part of the reason.
func oddKeys(t testing.TB) map[string]struct {
	key any
	why string
} {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := jwkOf(&private.PublicKey, "odd")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	curve := map[string]any{"kty": "EC", "crv": "P-256", "kid": "odd", "x": unpadded(point[1:33]), "y": unpadded(point[33:])}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &ec.PublicKey, ec)
	if err != nil {
		t.Fatal(err)
	}
	even := new(big.Int).Lsh(big.NewInt(3), 2047)
	cert := base64.StdEncoding.EncodeToString(der)
	type odd = struct {
		key any
		why string
	}
	return map[string]odd{
		"x5c no base64":         {with(good, map[string]any{"x5c": []any{"%%%"}}), ""},
		"x5c no certificate":    {with(good, map[string]any{"x5c": []any{"AAAA"}}), ""},
		"x5c of another key":    {with(good, map[string]any{"x5c": []any{cert}}), "X.509"},
		"x5c a text":            {with(good, map[string]any{"x5c": cert}), "x5c is a JSON string"},
		"x5u without TLS":       {with(good, map[string]any{"x5u": "http://127.0.0.1:1/x"}), ""},
		"n no base64url":        {with(good, map[string]any{"n": "%%%secret%%%"}), `"n"`},
		"n in base64":           {with(good, map[string]any{"n": strings.Repeat("+/", 171)}), `"n"`},
		"n missing":             {with(good, map[string]any{"n": nil}), `"n"`},
		"n a number":            {with(good, map[string]any{"n": 12345}), "n is a JSON number"},
		"n an object":           {with(good, map[string]any{"n": map[string]any{"a": 1}}), "n is a JSON object"},
		"n empty":               {with(good, map[string]any{"n": ""}), `"n"`},
		"n even":                {with(good, map[string]any{"n": unpadded(even.Bytes())}), "even"},
		"n short":               {with(good, map[string]any{"n": unpadded(private.N.Bytes()[:128])}), "bits"},
		"n enormous":            {with(good, map[string]any{"n": strings.Repeat("_", 40_000)}), "bits"},
		"e 1":                   {with(good, map[string]any{"e": "AQ"}), ""},
		"e 2":                   {with(good, map[string]any{"e": "Ag"}), "e is even"},
		"e 0":                   {with(good, map[string]any{"e": "AA"}), ""},
		"e beyond 64 bits":      {with(good, map[string]any{"e": "AQAAAAAAAAAAAQAB"}), ""},
		"e a number":            {with(good, map[string]any{"e": 65537}), "e is a JSON number"},
		"e missing":             {with(good, map[string]any{"e": nil}), `"e"`},
		"kty unknown":           {with(good, map[string]any{"kty": "PQC"}), "kty is"},
		"kty missing":           {with(good, map[string]any{"kty": nil}), "kty is"},
		"kty of another case":   {with(good, map[string]any{"kty": "rsa"}), "kty is"},
		"kty a number":          {with(good, map[string]any{"kty": 1}), "kty is a JSON number"},
		"a secret":              {map[string]any{"kty": "oct", "kid": "odd", "k": unpadded([]byte(testSecret))}, "kty is oct"},
		"Ed25519":               {map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "odd", "x": unpadded(point[1:33])}, "kty is"},
		"secp256k1":             {with(curve, map[string]any{"crv": "secp256k1"}), "crv is"},
		"P-384":                 {with(curve, map[string]any{"crv": "P-384"}), "crv is"},
		"a point off the curve": {with(curve, map[string]any{"y": curve["x"]}), ""},
		"a point missing":       {with(curve, map[string]any{"y": nil}), `"y"`},
		"for encryption":        {with(good, map[string]any{"use": "enc"}), "use is"},
		"use unknown":           {with(good, map[string]any{"use": "x"}), "use is"},
		"for RSA-OAEP":          {with(good, map[string]any{"use": nil, "alg": "RSA-OAEP"}), "alg is"},
		"for RS512":             {with(good, map[string]any{"alg": "RS512"}), "alg is"},
		"RSA for ES256":         {with(good, map[string]any{"alg": "ES256"}), "alg is"},
		"alg none":              {with(good, map[string]any{"alg": "none"}), "alg is"},
		"alg HS256":             {with(good, map[string]any{"alg": "HS256"}), "alg is"},
		"key_ops to encrypt":    {with(good, map[string]any{"key_ops": []any{"encrypt", "wrapKey"}}), "key_ops"},
		"key_ops to sign alone": {with(good, map[string]any{"key_ops": []any{"sign"}}), "key_ops"},
		"key_ops a text":        {with(good, map[string]any{"key_ops": "verify"}), "key_ops is a JSON string"},
		"kid a number":          {with(good, map[string]any{"kid": 7}), "kid is a JSON number"},
		"kid a list":            {with(good, map[string]any{"kid": []any{"odd"}}), "kid is a JSON array"},
		"kid long":              {with(good, map[string]any{"kid": strings.Repeat("k", jwksMaxKID+1)}), "a kid of 257 bytes"},
		"kid with a line break": {with(good, map[string]any{"kid": "a\nlevel=ERROR \u202e", "use": "enc"}), `"a\nlevel=ERROR \u202e"`},
		"null":                  {nil, "no JSON object"},
		"a number":              {7, "no JSON object"},
		"a text":                {"key", "no JSON object"},
		"a list":                {[]any{good}, "no JSON object"},
		"empty":                 {map[string]any{}, "kty is"},
		"a megabyte":            {with(good, map[string]any{"x5t": strings.Repeat("A", 1<<20)}), "an entry of"},
	}
}

// One odd entry in a key set kept everybody out.
func TestU7OddKeyIsLeftOutAndTheOthersWork(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	good := jwkOf(&i.key.Load().PublicKey, "one")
	all := []any{good}
	for name, odd := range oddKeys(t) {
		all = append(all, odd.key)
		for _, keys := range [][]any{{odd.key, good}, {good, odd.key}} {
			i.publish(t, "", keys, "")
			var log bytes.Buffer
			v, err := newVerifier(t.Context(), i.config(), slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
				t.Errorf("%s: the good key: %v", name, err)
			}
			set := v.keys.set.Load()
			if set.Len() != 1 || len(set.LeftOut) != 1 || !strings.Contains(strings.Join(set.LeftOut, ""), odd.why) {
				t.Errorf("%s: %d keys, left out %q, want %q", name, set.Len(), set.LeftOut, odd.why)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "is left out") {
				t.Errorf("%s: want one warning:\n%s", name, log.String())
			}
			for _, material := range []string{good["n"].(string), testSecret, unpadded([]byte(testSecret)), "secret%%%"} {
				if strings.Contains(log.String(), material) {
					t.Errorf("%s: the log has key material", name)
				}
			}
		}
	}
	i.publish(t, "", all, "")
	if _, err := i.verifier(t).verify(t.Context(), i.token(t, "one")); err != nil {
		t.Errorf("the good key among all odd ones: %v", err)
	}
}

func TestU7SetsThatAreOddAsAWhole(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	good := jwkOf(&i.key.Load().PublicKey, "one")
	padded := with(good, map[string]any{"n": good["n"].(string) + "=="})
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	thousand := []any{good}
	for n := range 1000 {
		key := with(good, map[string]any{"kid": fmt.Sprint(n), "n": unpadded(new(big.Int).Add(other.N, big.NewInt(int64(2*n))).Bytes())})
		thousand = append(thousand, key)
	}
	same := []any{}
	for range 40 {
		same = append(same, good)
	}
	for name, set := range map[string]struct {
		before string
		keys   []any
		after  string
	}{
		"a byte order mark":              {"\ufeff", []any{good}, ""},
		"text behind it":                 {"", []any{good}, "</html>"},
		"space around it":                {"\r\n\t ", []any{good}, "\n\n"},
		"padded base64":                  {"", []any{padded}, ""},
		"another key of that kid before": {"", []any{jwkOf(&other.PublicKey, "one"), good}, ""},
		"another key of that kid behind": {"", []any{good, jwkOf(&other.PublicKey, "one")}, ""},
		"the same key forty times":       {"", same, ""},
		"a thousand and one keys":        {"", thousand, ""},
		"members of others":              {"", []any{with(good, map[string]any{"x5x": 1, "iat": 1, "nbf": true})}, ""},
		"key_ops of others besides":      {"", []any{with(good, map[string]any{"key_ops": []any{"verify", "mine"}})}, ""},
		"without use and alg":            {"", []any{with(good, map[string]any{"use": nil, "alg": nil})}, ""},
	} {
		i.publish(t, set.before, set.keys, set.after)
		v := i.verifier(t)
		if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := v.verify(t.Context(), i.token(t, ""))
		if many := len(set.keys) > 100; many != (err != nil) { // strangers would have each token tried with each key
			t.Errorf("%s: a token without a kid: %v", name, err)
		}
	}
	i.publish(t, "", []any{with(good, map[string]any{"kid": nil})}, "")
	if _, err := i.verifier(t).verify(t.Context(), i.token(t, "")); err != nil {
		t.Errorf("a key without a kid: %v", err)
	}
}

// Auth0's x5t is the thumbprint in hexadecimal, in base64. It is a hint that nothing here uses, so the key is as good as any.
func TestU7ThumbprintThatIsNoneCostsNobodyTheirKey(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	key := i.key.Load()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(der)
	good := jwkOf(&key.PublicKey, "one")
	chain := []any{base64.StdEncoding.EncodeToString(der)}
	for name, odd := range map[string]map[string]any{
		"short":                     {"x5t": "AAAA"},
		"short, with a certificate": {"x5t": "AAAA", "x5c": chain},
		"Auth0's":                   {"x5t": unpadded([]byte(fmt.Sprintf("%X", sum))), "x5c": chain},
		"another's":                 {"x5t": unpadded(make([]byte, 20)), "x5c": chain},
		"SHA-256 in hexadecimal":    {"x5t#S256": unpadded([]byte(strings.Repeat("ab", 32)))},
		"no base64":                 {"x5t": "%%%"},
	} {
		i.publish(t, "", []any{with(good, odd)}, "")
		var log bytes.Buffer
		v, err := newVerifier(t.Context(), i.config(), slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), "x5t") {
			t.Errorf("%s: want one warning: %s", name, log.String())
		}
	}
	i.publish(t, "", []any{with(good, map[string]any{"x5t": unpadded(sum[:]), "x5c": chain})}, "")
	if set := func() *KeySet { v := i.verifier(t); return v.keys.set.Load() }(); len(set.Odd) != 0 || set.Len() != 1 {
		t.Errorf("a right thumbprint: %+v", set)
	}
}

// An issuer that publishes too much is said at the level of errors; its tokens are still those that the application accepts.
func TestU7PublishedPrivateKeyIsSaidLoudly(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	key := i.key.Load()
	d := unpadded(key.D.Bytes())
	i.publish(t, "", []any{with(jwkOf(&key.PublicKey, "one"), map[string]any{"d": d})}, "")
	var log bytes.Buffer
	v, err := newVerifier(t.Context(), i.config(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
		t.Error(err)
	}
	if got := log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "private half") || strings.Contains(got, d) {
		t.Errorf("the log: %s", got)
	}
}

// When no key can be used the reasons are said, within bounds, and once for each set of reasons.
func TestU7NoKeyCanBeUsed(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	secret := unpadded([]byte(testSecret))
	keys := []any{map[string]any{"kty": "oct", "kid": "one", "k": secret}}
	for n := range 400 {
		keys = append(keys, map[string]any{"kty": "RSA", "kid": fmt.Sprint("enc", n), "use": "enc"})
	}
	i.publish(t, "", keys, "")
	_, err := FetchKeySet(t.Context(), i.url)
	if err == nil || !strings.Contains(err.Error(), `none of its 401 keys can verify`) || !strings.Contains(err.Error(), `kid "one": kty is oct`) ||
		!strings.Contains(err.Error(), "396 more") || len(err.Error()) > 600 || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
	if _, err := i.verifier(t).verify(t.Context(), i.token(t, "one")); answerTo(err) != errNoKeys {
		t.Errorf("got %v, want errNoKeys", err)
	}
	for answer, want := range map[string]string{
		`{"issuer":"https://id.example","jwks_uri":"https://id.example/keys"}`: `set JWT_JWKS_URL to the address that it names, "https://id.example/keys"`,
		`{"one":"-----BEGIN CERTIFICATE-----"}`:                                "none of its 0 keys",
		`{"keys":{"one":{}}}`:                                                  "no key set",
		`[{"kty":"RSA"}]`:                                                      "no key set",
		"":                                                                     "no key set",
		`{"keys":[` + strings.Repeat(" ", jwksMaxSize): "longer than",
	} {
		if _, err := parseKeySet([]byte(answer)[:min(len(answer), jwksMaxSize)]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", answer, err, want)
		}
	}
}

// The keys of a set are named once, not at each refresh, and not all of very many.
func TestU7OddKeysAreToldOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	k := bareJWKS(nil)
	k.logger = slog.New(slog.NewTextHandler(&log, nil))
	set := &KeySet{}
	for n := range 1000 {
		set.LeftOut = append(set.LeftOut, fmt.Sprintf("kid %q: use is \"enc\"", fmt.Sprint(n)))
	}
	for range 3 {
		k.load = func(context.Context) (*KeySet, error) { return set, nil }
		k.refresh(t.Context())
	}
	if n := strings.Count(log.String(), "\n"); n != jwksMaxTold+1 || !strings.Contains(log.String(), "keys=990") {
		t.Errorf("%d lines, want %d:\n%s", n, jwksMaxTold+1, log.String())
	}
	log.Reset()
	set = &KeySet{LeftOut: append([]string{`kid "new": use is "enc"`}, set.LeftOut...)}
	k.refresh(t.Context())
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "new") {
		t.Errorf("want a line about the new key alone:\n%s", log.String())
	}
}

// A published secret must never verify HS256, and a public key must not either.
func TestU7SecretOfAKeySetVerifiesNothing(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	published := []byte(strings.Repeat("p", 40))
	i.publish(t, "", []any{jwkOf(&i.key.Load().PublicKey, "one"), map[string]any{"kty": "oct", "kid": "h", "alg": "HS256", "k": unpadded(published)}}, "")
	v := i.verifier(t)
	for _, kid := range []string{"h", "one", ""} {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "alice", "iss": "https://id.example", "aud": "auditstream", "exp": time.Now().Add(time.Hour).Unix()})
		if kid != "" {
			token.Header["kid"] = kid
		}
		signed, err := token.SignedString(published)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.verify(t.Context(), signed); answerTo(err) != errInvalidToken {
			t.Errorf("kid %q: %v, want errInvalidToken", kid, err)
		}
	}
}
