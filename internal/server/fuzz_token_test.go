package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"auditstream/internal/testkit"
)

// tokenKeys are the keys that a fuzzed token may be signed with, and what an attacker knows of them.
type tokenKeys struct {
	rsa, strange *rsa.PrivateKey
	ec           *ecdsa.PrivateKey
	public       []byte // PEM
}

func newTokenKeys(tb testing.TB) *tokenKeys {
	tb.Helper()
	k := &tokenKeys{rsa: rsaKey(tb), strange: rsaKey(tb), ec: ecKey(tb)}
	k.public = publicPEM(tb, &k.rsa.PublicKey)
	return k
}

func publicPEM(tb testing.TB, key any) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	testkit.NoError(tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// hmacOf signs text with HS256.
func hmacOf(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// verifier knows the RSA key as "r" and the EC key as "e", without an issuer to ask for others.
func (k *tokenKeys) verifier(tb testing.TB) *verifier {
	tb.Helper()
	v := verifierOf(tb, AuthConfig{Secret: testSecret, Issuer: "https://id.example", Audience: "auditstream"})
	v.keys = bareJWKS(func(context.Context) (*KeySet, error) { return nil, errTest })
	v.keys.set.Store(keySet(tb, map[string]crypto.PublicKey{"r": &k.rsa.PublicKey, "e": &k.ec.PublicKey}))
	return rsAndES(v)
}

// rsAndES lets a verifier's parser through to the keys, as newVerifier does where there is a URL.
func rsAndES(v *verifier) *verifier {
	v.trusted.Store(&trusted{v.trusted.Load().secrets, newParser([]string{"HS256", "RS256", "ES256"}, "https://id.example", "auditstream")})
	return v
}

// sign signs as an attacker or an issuer would, by mode.
func (k *tokenKeys) sign(tb testing.TB, mode byte, text string) []byte {
	tb.Helper()
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch mode % 9 {
	case 0:
		return hmacOf([]byte(testSecret), text)
	case 1:
		signature, err = rsa.SignPKCS1v15(nil, k.rsa, crypto.SHA256, sum[:])
	case 2:
		r, s, e := ecdsa.Sign(rand.Reader, k.ec, sum[:])
		if err = e; err == nil {
			signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	case 3:
		return hmacOf(k.public, text)
	case 4:
		return hmacOf(k.rsa.N.Bytes(), text)
	case 5:
		return hmacOf(nil, text)
	case 6:
		signature, err = rsa.SignPKCS1v15(nil, k.strange, crypto.SHA256, sum[:])
	case 7:
		signature, err = rsa.SignPSS(rand.Reader, k.rsa, crypto.SHA256, sum[:], nil)
	case 8:
		signature, err = ecdsa.SignASN1(rand.Reader, k.ec, sum[:])
	}
	testkit.NoError(tb, err)
	return signature
}

// genuine is a check of a token that shares no code with the product's: what it refuses must never be accepted.
func (k *tokenKeys) genuine(token string, now time.Time) (claims map[string]any, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	var decoded [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, false
		}
		decoded[i] = b
	}
	var header map[string]any
	if json.Unmarshal(decoded[0], &header) != nil {
		return nil, false
	}
	if _, critical := header["crit"]; critical {
		return nil, false
	}
	text, signature := parts[0]+"."+parts[1], decoded[2]
	sum := sha256.Sum256([]byte(text))
	switch header["alg"] {
	case "HS256":
		ok = bytes.Equal(hmacOf([]byte(testSecret), text), signature)
	case "RS256":
		ok = rsa.VerifyPKCS1v15(&k.rsa.PublicKey, crypto.SHA256, sum[:], signature) == nil
	case "ES256":
		ok = len(signature) == 64 && ecdsa.Verify(&k.ec.PublicKey, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	if !ok || json.Unmarshal(decoded[1], &claims) != nil {
		return nil, false
	}
	seconds := float64(now.UnixNano()) / 1e9
	exp, isNumber := number(claims["exp"])
	if !isNumber || exp < seconds-1 || claims["iss"] != "https://id.example" {
		return nil, false
	}
	if nbf, isNumber := number(claims["nbf"]); claims["nbf"] != nil && (!isNumber || nbf > seconds+61) {
		return nil, false
	}
	audiences, _ := claims["aud"].([]any)
	if claims["aud"] != "auditstream" && !slices.Contains(audiences, any("auditstream")) {
		return nil, false
	}
	_, text1 := claims["sub"].(string)
	return claims, text1 || claims["sub"] == nil
}

// number also reads a number that is written as text, as the library does; only an issuer could send that.
func number(value any) (float64, bool) {
	if s, ok := value.(string); ok {
		n, err := strconv.ParseFloat(s, 64)
		return n, err == nil
	}
	n, ok := value.(float64)
	return n, ok
}

const farFuture = "4102444800" // 2100

// Only a token that an independent check finds genuine is accepted, and it speaks for exactly who its claims name.
func FuzzToken(f *testing.F) {
	const good = `{"iss":"https://id.example","aud":"auditstream","sub":"alice","email":"a@b.c","exp":` + farFuture + `}`
	for mode := range byte(9) {
		for _, header := range []string{`{"alg":"HS256"}`, `{"alg":"RS256","kid":"r"}`, `{"alg":"ES256","kid":"e"}`, `{"alg":"RS256"}`, `{"alg":"none"}`, `{"alg":"nOnE"}`} {
			f.Add(header, good, mode, uint16(0), byte(0))
		}
	}
	for _, header := range []string{
		`{"alg":"HS256","alg":"none"}`, `{"alg":"none","alg":"HS256"}`, `{"alg":["HS256"]}`, `{"alg":"HS256","crit":["exp"]}`, `{"alg":"HS256","b64":false}`, `{}`, `null`, `[]`,
		`{"alg":"HS256","kid":"../../etc/passwd"}`, `{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},"jku":"https://evil.example","x5u":"https://evil.example","x5c":["AA"]}`,
		`{"ALG":"HS256"}`, ` {"alg":"HS256"}`, `{"alg":"HS256"}x`, `{"alg":"HS384"}`, `{"alg":"RS256","kid":7}`, `{"alg":"HS256","zip":"DEF"}`,
	} {
		f.Add(header, good, byte(0), uint16(0), byte(0))
	}
	for _, claims := range []string{
		`{}`, `null`, `[]`, `{"exp":0}`, strings.Replace(good, farFuture, "1e300", 1), strings.Replace(good, farFuture, "-1", 1), strings.Replace(good, farFuture, "9223372036854775807", 1),
		strings.Replace(good, farFuture, "4102444800.5", 1), strings.Replace(good, farFuture, "1,\"exp\":4102444800", 1), strings.Replace(good, farFuture, "4102444800,\"exp\":1", 1),
		strings.Replace(good, farFuture, "null", 1), strings.Replace(good, farFuture, `"`+farFuture+`"`, 1), strings.Replace(good, `"auditstream"`, `["x","auditstream"]`, 1),
		strings.Replace(good, `"alice"`, `7`, 1), strings.Replace(good, `"alice"`, `"a\u0000\nb"`, 1), strings.Replace(good, `"sub"`, `"SUB"`, 1), strings.Replace(good, `{`, `{"nbf":4102444800,`, 1),
		strings.Replace(good, `{`, `{"email_verified":"null",`, 1), strings.Replace(good, `{`, `{"email_verified":false,`, 1), good + good,
	} {
		f.Add(`{"alg":"HS256"}`, claims, byte(0), uint16(0), byte(0))
	}
	f.Add(`{"alg":"HS256"}`, good, byte(0), uint16(60), byte(1))
	keys := newTokenKeys(f)
	v := keys.verifier(f)
	b64 := base64.RawURLEncoding.EncodeToString
	f.Fuzz(func(t *testing.T, header, claims string, mode byte, at uint16, flip byte) {
		text := b64([]byte(header)) + "." + b64([]byte(claims))
		token := []byte(text + "." + b64(keys.sign(t, mode, text)))
		token[int(at)%len(token)] ^= flip
		v.keys.started = time.Time{} // no waiting for the next look at the issuer, of which there is none
		who, err := v.verify(t.Context(), string(token))
		want, genuine := keys.genuine(string(token), time.Now())
		switch {
		case err == nil && !genuine:
			t.Fatalf("%s: accepted", token)
		case err != nil && answerTo(err) != errInvalidToken:
			t.Errorf("%s: %v, want errInvalidToken", token, err)
		case err != nil:
			if flip == 0 && header == `{"alg":"HS256"}` && mode%9 == 0 && claims == good {
				t.Errorf("%s: %v, want it accepted", token, err)
			}
			return
		}
		sub, _ := want["sub"].(string)
		email, _ := want["email"].(string)
		verified, given := want["email_verified"]
		if text, ok := verified.(string); ok {
			verified = strings.EqualFold(text, "true")
		}
		if given && verified != true && verified != nil {
			email = ""
		}
		if who.Subject != sub || who.Email != email {
			t.Errorf("%s: speaks for %q and %q, want %q and %q", claims, who.Subject, who.Email, sub, email)
		}
		if exp, _ := number(want["exp"]); exp < 1e15 && who.Expires.Sub(time.UnixMilli(int64(exp*1000))).Abs() > time.Second {
			t.Errorf("%s: expires %v", claims, who.Expires)
		}
	})
}
