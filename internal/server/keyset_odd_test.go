package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"math/big"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

func unpadded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func jwkOf(key *rsa.PublicKey, kid string) map[string]any {
	return map[string]any{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": unpadded(key.N.Bytes()), "e": "AQAB"}
}

func ecJWKOf(t testing.TB, key *ecdsa.PublicKey, kid string) map[string]any {
	t.Helper()
	point, err := key.Bytes()
	testkit.NoError(t, err)
	return map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "x": unpadded(point[1:33]), "y": unpadded(point[33:])}
}

// selfSigned returns a certificate of a key, for x5c.
func selfSigned(t testing.TB, key crypto.Signer) (der []byte) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.NoError(t, err)
	return der
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

// oddKeys are entries that RFC 7517, section 5 has us ignore, made of a good key of another kid, with a part of the reason.
func oddKeys(t testing.TB) map[string]struct {
	key any
	why string
} {
	t.Helper()
	private, ec := rsaKey(t), ecKey(t)
	good, curve := jwkOf(&private.PublicKey, "odd"), ecJWKOf(t, &ec.PublicKey, "odd")
	even := new(big.Int).Lsh(big.NewInt(3), 2047)
	cert := base64.StdEncoding.EncodeToString(selfSigned(t, ec))
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
		"Ed25519":               {map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "odd", "x": curve["x"]}, "kty is"},
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
