package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"auditstream/internal/testkit"
)

// strings of a document, wherever they stand in it.
func texts(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, texts(e)...)
		}
		return all
	case map[string]any:
		var all []string
		for name, e := range v {
			all = append(append(all, name), texts(e)...)
		}
		return all
	}
	return nil
}

// publishes reports whether any text of a document is the modulus.
func publishes(document string, key *rsa.PrivateKey) bool {
	var value any
	if json.NewDecoder(strings.NewReader(document)).Decode(&value) != nil {
		return false
	}
	for _, text := range texts(value) {
		if b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "=")); err == nil && new(big.Int).SetBytes(b).Cmp(key.N) == 0 {
			return true
		}
	}
	return false
}

// Whatever an issuer publishes, and then publishes next: nothing panics, a token is accepted only if it is signed with an
// asymmetric key that some document held, and the known keys stay while a document holds none.
func FuzzJWKS(f *testing.F) {
	keys := newTokenKeys(f)
	b64 := base64.RawURLEncoding.EncodeToString
	// Keys differ from run to run, so the corpus names them.
	point, err := keys.ec.PublicKey.Bytes()
	testkit.NoError(f, err)
	d := keys.rsa
	names := strings.NewReplacer("@N@", b64(d.N.Bytes()), "@M@", b64(keys.strange.N.Bytes()), "@X@", b64(point[1:33]), "@Y@", b64(point[33:]),
		"@D@", b64(d.D.Bytes()), "@P@", b64(d.Primes[0].Bytes()), "@Q@", b64(d.Primes[1].Bytes()), "@DP@", b64(d.Precomputed.Dp.Bytes()),
		"@DQ@", b64(d.Precomputed.Dq.Bytes()), "@QI@", b64(d.Precomputed.Qinv.Bytes()))

	const good = `{"keys":[{"kty":"RSA","kid":"r","n":"@N@","e":"AQAB"}]}`
	const other = `{"keys":[{"kty":"RSA","kid":"r","n":"@M@","e":"AQAB"}]}`
	const private = `{"keys":[{"kty":"RSA","kid":"r","n":"@N@","e":"AQAB","d":"@D@","p":"@P@","q":"@Q@","dp":"@DP@","dq":"@DQ@","qi":"@QI@"}]}`
	for _, seed := range []string{
		good, other, private, "", "null", "[]", "{}", `{"keys":null}`, `{"keys":[]}`, `{"keys":[null]}`, `{"keys":{}}`, "<html>", "\x00", "{\"keys\":[",
		`{"keys":[{"kty":"oct","kid":"r","k":"@N@"}]}`, `{"keys":[{"kty":"oct","kid":"r","k":""}]}`, `{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"@X@","y":"@Y@"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"@X@","y":"@X@"}]}`, `{"keys":[{"kty":"RSA","kid":"r","n":"AQ","e":"AQ"}]}`, `{"keys":[{"kty":"RSA","kid":"r","n":"@N@","e":"AQ"}]}`,
		`{"keys":[{"kty":"RSA","kid":"r","use":"enc","n":"@N@","e":"AQAB"}]}`, `{"keys":[{"kty":"RSA","kid":"r","alg":"RS512","n":"@N@","e":"AQAB"}]}`,
		`{"keys":[{"kty":"RSA","n":"@N@","e":"AQAB"},{"kty":"RSA","kid":"r","n":"@M@","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"@X@"}]}`,
		strings.Replace(private, `"d":"@D@"`, `"d":"AA"`, 1), strings.Replace(private, `"p":"@P@"`, `"p":"AA"`, 1), strings.Replace(private, `"p":"@P@"`, `"p":"Ag"`, 1),
		strings.Replace(private, `"d":`, `"oth":[{"r":"AQ","d":"AQ","t":"AQ"}],"d":`, 1), strings.Replace(good, `"kty"`, `"x5u":"https://evil.example","x5c":["AA=="],"kty"`, 1),
	} {
		f.Add(good, seed, "r")
		f.Add(seed, "{}", "")
	}

	var document string
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, document) }))
	f.Cleanup(func() { issuer.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	cfg := AuthConfig{Secret: testSecret, JWKSURL: issuer.URL, Issuer: "https://id.example", Audience: "auditstream"}
	claims := b64([]byte(`{"iss":"https://id.example","aud":"auditstream","sub":"alice","exp":` + farFuture + `}`))
	token := func(alg, kid string, sign func(text string) []byte) string {
		header := map[string]string{"alg": alg}
		if kid != "" {
			header["kid"] = kid
		}
		head, _ := json.Marshal(header) // texts always marshal
		text := b64(head) + "." + claims
		return text + "." + b64(sign(text))
	}
	signatures := make(map[[sha256.Size]byte][]byte) // by key and text: signing takes longer than all the rest
	rs := func(key *rsa.PrivateKey) func(string) []byte {
		return func(text string) []byte {
			sum := sha256.Sum256([]byte(text))
			which := sha256.Sum256(append(sum[:], key.N.Bytes()...))
			if _, made := signatures[which]; !made {
				signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
				if err != nil {
					panic(err) // a key that was made for this signs
				}
				signatures[which] = signature
			}
			return signatures[which]
		}
	}
	hs := func(key []byte) func(string) []byte {
		return func(text string) []byte { return hmacOf(key, text) }
	}

	f.Fuzz(func(t *testing.T, first, second, kid string) {
		document = names.Replace(first)
		v := verifierOf(t, cfg)
		gone, cancel := context.WithCancel(t.Context())
		cancel() // nobody waits for another fetch
		accepts := func(token string) bool {
			_, err := v.verify(gone, token)
			if err != nil && answerTo(err) != errInvalidToken && answerTo(err) != errNoKeys {
				t.Errorf("%v is no refusal", err)
			}
			return err == nil
		}
		count := func() int {
			if set := v.keys.set.Load(); set != nil {
				return set.Len()
			}
			return 0
		}
		secrets := []string{"", keys.rsa.N.String(), string(keys.rsa.N.Bytes()), string(keys.public)}
		for _, next := range []string{document, names.Replace(second)} {
			var value any
			_ = json.Unmarshal([]byte(next), &value) // what is no JSON holds no key
			for _, text := range texts(value) {
				if b, err := base64.RawURLEncoding.DecodeString(text); err == nil && len(secrets) < 8 {
					secrets = append(secrets, text, string(b))
				}
			}
		}
		seen := ""
		for _, next := range []string{document, names.Replace(second)} {
			had := count()
			document, seen = next, seen+next
			v.keys.started = time.Time{} // as if the last fetch were long ago
			_, _ = v.verify(t.Context(), token("RS256", "unknown", rs(keys.strange)))
			if now := count(); now == 0 && had > 0 || now > jwksMaxSize/len(`{"kty":""}`) {
				t.Errorf("%d keys became %d", had, now)
			}
			for _, kid := range []string{"", "r", kid} {
				for _, key := range []*rsa.PrivateKey{keys.rsa, keys.strange} {
					if accepts(token("RS256", kid, rs(key))) && !publishes(document, key) && !publishes(names.Replace(first), key) {
						t.Errorf("%q: a token of a key that was never published is accepted", seen)
					}
				}
				for _, secret := range secrets {
					for _, alg := range []string{"HS256", "RS256"} {
						if accepts(token(alg, kid, hs([]byte(secret)))) {
							t.Errorf("%q: %s with %q is accepted", seen, alg, secret)
						}
					}
				}
			}
			if next == names.Replace(good) && !accepts(token("RS256", "r", rs(keys.rsa))) {
				t.Errorf("%q: the good key is not accepted", next)
			}
		}
	})
}

// The bound on what is read of an answer holds for what it unpacks to.
func TestKeySetThatUnpacksToMore(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(make([]byte, 4*jwksMaxSize)); err != nil {
		t.Fatal(err)
	}
	testkit.NoError(t, z.Close())
	bomb := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	})
	i.answer.Store(&bomb)
	_, err := FetchKeySet(t.Context(), i.url)
	for end := time.Now().Add(time.Minute); errors.Is(err, context.DeadlineExceeded) && time.Now().Before(end); { // a busy machine may take longer than the client has patience
		_, err = FetchKeySet(t.Context(), i.url)
	}
	if want := fmt.Sprintf("the answer is longer than %d bytes", jwksMaxSize); fmt.Sprint(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
