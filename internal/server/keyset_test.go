package server

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// publish has the issuer answer with these entries, and more text before and after them.
func (i *issuer) publish(t testing.TB, before string, keys []any, after string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"keys": keys})
	testkit.NoError(t, err)
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, before+string(body)+after)
	})
	i.answer.Store(&answer)
}

// Because of one odd entry in a key set all tokens were refused.
func TestU7OddKeyIsLeftOutAndTheOthersWork(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	good := jwkOf(&i.key.Load().PublicKey, "one")
	all := []any{good}
	for name, odd := range oddKeys(t) {
		all = append(all, odd.key)
		for _, keys := range [][]any{{odd.key, good}, {good, odd.key}} {
			i.publish(t, "", keys, "")
			v, log := logged(t, i.config())
			if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
				t.Errorf("%s: the good key: %v", name, err)
			}
			set := v.keys.set.Load()
			if set.Len() != 1 || len(set.LeftOut) != 1 || !strings.Contains(strings.Join(set.LeftOut, ""), odd.why) {
				t.Errorf("%s: %d keys, left out %q, want %q", name, set.Len(), set.LeftOut, odd.why)
			}
			if log.Lines() != 1 || !log.Has("level=WARN", "is left out") {
				t.Errorf("%s: want one warning:\n%s", name, log)
			}
			for _, material := range []string{good["n"].(string), testSecret, unpadded([]byte(testSecret)), "secret%%%"} {
				if log.Has(material) {
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
	other := rsaKey(t)
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
	der := selfSigned(t, key)
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
		v, log := logged(t, i.config())
		if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if log.Count("level=WARN") != 1 || !log.Has("x5t") {
			t.Errorf("%s: want one warning: %s", name, log)
		}
	}
	i.publish(t, "", []any{with(good, map[string]any{"x5t": unpadded(sum[:]), "x5c": chain})}, "")
	if set := i.verifier(t).keys.set.Load(); len(set.Odd) != 0 || set.Len() != 1 {
		t.Errorf("a right thumbprint: %+v", set)
	}
}

// A published private key is logged as an error; the issuer's tokens are still accepted.
func TestU7PublishedPrivateKeyIsSaidLoudly(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	key := i.key.Load()
	d := unpadded(key.D.Bytes())
	i.publish(t, "", []any{with(jwkOf(&key.PublicKey, "one"), map[string]any{"d": d})}, "")
	v, log := logged(t, i.config())
	if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
		t.Error(err)
	}
	if !log.Has("level=ERROR", "private half") || log.Has(d) {
		t.Errorf("the log: %s", log)
	}
}

// If no key can be used, the reasons are logged, at most a few, and once for each set of reasons.
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
		`{"one":"-----BEGIN CERTIFICATE-----"}`:                                "no key set",
		`{"keys":null}`:                                                        "no key set",
		`{"error":"forbidden"}`:                                                "no key set",
		"null":                                                                 "no key set",
		"\xff\xfe{\x00}\x00":                                                   "no key set",
		`{"keys":[]}`:                                                          "none of its 0 keys",
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

// The odd keys of a set are logged once, not at each refresh, and of very many only some.
func TestU7OddKeysAreToldOnce(t *testing.T) {
	t.Parallel()
	log := new(testkit.Log)
	k := bareJWKS(nil)
	k.logger = log.Logger()
	set := &KeySet{}
	for n := range 1000 {
		set.LeftOut = append(set.LeftOut, fmt.Sprintf("kid %q: use is \"enc\"", fmt.Sprint(n)))
	}
	for range 3 {
		k.load = func(context.Context) (*KeySet, error) { return set, nil }
		k.refresh(t.Context())
	}
	if log.Lines() != jwksMaxLogged+1 || !log.Has("keys=990") {
		t.Errorf("%d lines, want %d:\n%s", log.Lines(), jwksMaxLogged+1, log)
	}
	log.Reset()
	set = &KeySet{LeftOut: append([]string{`kid "new": use is "enc"`}, set.LeftOut...)}
	k.refresh(t.Context())
	if log.Lines() != 1 || !log.Has("new") {
		t.Errorf("want a line about the new key alone:\n%s", log)
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
		header := map[string]any{"kid": kid}
		if kid == "" {
			header = nil
		}
		if _, err := v.verify(t.Context(), signed(t, jwt.SigningMethodHS256, published, claimsOf("alice"), header)); answerTo(err) != errInvalidToken {
			t.Errorf("kid %q: %v, want errInvalidToken", kid, err)
		}
	}
}

// Each key was compared with all others: ten thousand without a kid took half a minute, for which requests waited.
func BenchmarkKeySetOfTenThousandKeys(b *testing.B) {
	key := rsaKey(b)
	keys := []any{}
	for n := range 10_000 {
		keys = append(keys, with(jwkOf(&key.PublicKey, ""), map[string]any{"n": unpadded(new(big.Int).Add(key.N, big.NewInt(int64(2*n))).Bytes())}))
	}
	body, err := json.Marshal(map[string]any{"keys": keys})
	testkit.NoError(b, err)
	for b.Loop() {
		if set, err := parseKeySet(body); err != nil || set.Len() != len(keys) {
			b.Fatal(set.Len(), err)
		}
	}
}
