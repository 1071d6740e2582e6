package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

const (
	jwksTimeout = 5 * time.Second
	jwksMaxSize = 4 << 20  // bytes of an answer that are read
	jwksMaxKey  = 64 << 10 // bytes of one entry; a chain of certificates takes a few thousand
	jwksMaxKID  = 256      // bytes
	// jwksMaxTries is how many keys a token's signature is tried with: all of its kid, or all when it names none. Verifying
	// takes tens of microseconds, and strangers may ask for it.
	jwksMaxTries = 16

	minRSABits = 2048  // RFC 7518, section 3.3
	maxRSABits = 16384 // verifying takes time that grows with the square
)

// KeySet is what an issuer publishes. It is not changed.
type KeySet struct {
	// LeftOut says of each key that cannot verify RS256 or ES256 which it is, and why. It has no key material.
	LeftOut []string
	// Odd says of each key that is used what is odd about it.
	Odd []string
	// Private names the keys whose private half is published, too. They verify tokens, but anybody can sign with them.
	Private []string

	all   []crypto.PublicKey
	byKID map[string][]crypto.PublicKey // "": those without
	known map[string]bool               // while it is made
}

// Len is how many keys can verify a token.
func (s *KeySet) Len() int { return len(s.all) }

// find returns the keys that may have signed a token of the algorithm and the kid; without a kid, all of the algorithm.
func (s *KeySet) find(alg, kid string, named bool) (keys jwt.VerificationKeySet, err error) {
	candidates := s.all
	if named {
		candidates = s.byKID[kid]
	}
	for _, key := range candidates {
		if algorithmOf(key) == alg {
			keys.Keys = append(keys.Keys, key)
		}
	}
	switch {
	case len(keys.Keys) == 0:
		return keys, faultUnknownKID
	case len(keys.Keys) > jwksMaxTries:
		return keys, faultTooManyKeys
	}
	return keys, nil
}

func algorithmOf(key crypto.PublicKey) string {
	if _, ok := key.(*rsa.PublicKey); ok {
		return "RS256"
	}
	return "ES256"
}

// FetchKeySet asks an issuer for its keys. A set without any that can verify a token is an error, which says why.
func FetchKeySet(ctx context.Context, address string) (*KeySet, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("not an address")
	}
	resp, err := jwksClient().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the address, which may hold a key
		}
		return nil, fmt.Errorf("fetch from %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", req.URL.Host, err)
	}
	return parseKeySet(body)
}

// parseKeySet leaves out what it cannot use, key by key, as RFC 7517, section 5 asks for. What follows the document is ignored.
func parseKeySet(body []byte) (*KeySet, error) {
	var document struct {
		Keys      []json.RawMessage `json:"keys"`
		Discovery string            `json:"jwks_uri"`
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) // a byte order mark
	err := json.NewDecoder(bytes.NewReader(body)).Decode(&document)
	switch {
	case err != nil && len(body) == jwksMaxSize:
		return nil, fmt.Errorf("the answer is longer than %d bytes", jwksMaxSize)
	case document.Keys == nil && document.Discovery != "":
		return nil, fmt.Errorf("the answer is the discovery document; set JWT_JWKS_URL to the address that it names, %s", shortened(document.Discovery))
	case err != nil || document.Keys == nil:
		return nil, errors.New(`the answer is no key set; want JSON with a list "keys"`)
	}
	set := &KeySet{byKID: make(map[string][]crypto.PublicKey)}
	for i, raw := range document.Keys {
		public, jwk, odd, err := parseKey(raw)
		name := "kid " + shortened(jwk.KID)
		if jwk.KID == "" {
			name = "number " + strconv.Itoa(i+1) + " (no kid)"
		}
		if err == nil {
			err = set.add(jwk.KID, public)
		}
		if err != nil {
			set.LeftOut = append(set.LeftOut, name+": "+err.Error())
			continue
		}
		if odd != "" {
			set.Odd = append(set.Odd, name+": "+odd)
		}
		if jwk.D != "" || jwk.P != "" || jwk.Q != "" {
			set.Private = append(set.Private, name)
		}
	}
	set.known = nil
	if len(set.all) == 0 {
		few := set.LeftOut[:min(len(set.LeftOut), 5)]
		if more := len(set.LeftOut) - len(few); more > 0 {
			few = append(slices.Clone(few), strconv.Itoa(more)+" more")
		}
		return nil, fmt.Errorf("none of its %d keys can verify RS256 or ES256: %s", len(document.Keys), strings.Join(few, "; "))
	}
	return set, nil
}

// add takes a key once. Keys of one kid are tried one after the other.
func (s *KeySet) add(kid string, key crypto.PublicKey) error {
	encoded, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return errors.New("the key cannot be encoded")
	}
	if s.known == nil {
		s.known = make(map[string]bool)
	}
	id := kid + "\x00" + string(encoded) // compared with each other, ten thousand keys would take half a minute
	if s.known[id] {
		return nil
	}
	if kid != "" && len(s.byKID[kid]) == jwksMaxTries {
		return fmt.Errorf("the set has more than %d keys of that kid", jwksMaxTries)
	}
	s.known[id] = true
	s.byKID[kid] = append(s.byKID[kid], key)
	s.all = append(s.all, key)
	return nil
}

// parseKey returns a key that can verify RS256 or ES256, what could be read of the entry, and what is odd about it. The private
// half, where there is one, is not looked at.
func parseKey(raw json.RawMessage) (public crypto.PublicKey, m jwkset.JWKMarshal, odd string, err error) {
	if len(raw) > jwksMaxKey {
		return nil, m, "", fmt.Errorf("an entry of %d bytes; the limit is %d", len(raw), jwksMaxKey)
	}
	err = json.Unmarshal(raw, &m)
	kind, wrong := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case wrong && kind.Field != "":
		return nil, m, "", fmt.Errorf("%s is a JSON %s", kind.Field, strings.Fields(kind.Value)[0])
	case err != nil || string(raw) == "null":
		return nil, m, "", errors.New("no JSON object")
	case len(m.KID) > jwksMaxKID:
		return nil, m, "", fmt.Errorf("a kid of %d bytes; the limit is %d", len(m.KID), jwksMaxKID)
	}
	if err := forSignatures(m); err != nil {
		return nil, m, "", err
	}
	jwk, err := publicKey(m)
	if err != nil || wrongLength(m.X5T, sha1.Size) || wrongLength(m.X5TS256, sha256.Size) {
		// Auth0 publishes thumbprints of twice their length. Nothing here looks a key up by one.
		bare := m
		bare.X5T, bare.X5TS256 = "", ""
		odd = "x5t or x5t#S256 is not its certificate's thumbprint, which nothing here uses"
		if jwk, err = publicKey(bare); err != nil {
			return nil, m, "", errors.New(cut(err.Error(), 200)) // names members, and shows no value
		}
	}
	if key, ok := jwk.Key().(*rsa.PublicKey); ok {
		return key, m, odd, checkRSA(key)
	}
	return jwk.Key().(*ecdsa.PublicKey), m, odd, nil // forSignatures let nothing else through
}

func publicKey(m jwkset.JWKMarshal) (jwkset.JWK, error) {
	return jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipKeyOps: true})
}

func wrongLength(thumbprint string, size int) bool {
	return thumbprint != "" && base64.RawURLEncoding.DecodedLen(len(strings.TrimRight(thumbprint, "="))) != size
}

// forSignatures reports why a key is not meant for RS256 or ES256. A key set may hold others: for encryption, for other
// algorithms, and by mistake even secrets.
func forSignatures(m jwkset.JWKMarshal) error {
	want := jwkset.AlgRS256
	switch {
	case m.KTY == jwkset.KtyRSA:
	case m.KTY == jwkset.KtyEC && m.CRV == jwkset.CrvP256:
		want = jwkset.AlgES256
	case m.KTY == jwkset.KtyEC:
		return fmt.Errorf("crv is %s; ES256 has P-256", shortened(string(m.CRV)))
	case m.KTY == jwkset.KtyOct:
		return errors.New("kty is oct: a secret, which does not belong into a key set and verifies nothing here")
	default:
		return fmt.Errorf("kty is %s; want RSA or EC", shortened(string(m.KTY)))
	}
	switch {
	case m.USE != "" && m.USE != jwkset.UseSig:
		return fmt.Errorf("use is %s; want sig", shortened(string(m.USE)))
	case len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify):
		return errors.New("key_ops has no verify")
	case m.ALG != "" && m.ALG != want:
		return fmt.Errorf("alg is %s; of this kty only %s is supported", shortened(string(m.ALG)), want)
	}
	return nil
}

func checkRSA(key *rsa.PublicKey) error {
	switch bits := key.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Errorf("n has %d bits; want %d to %d", bits, minRSABits, maxRSABits)
	case key.N.Bit(0) == 0:
		return errors.New("n is even, so it is no RSA key")
	case key.E < 3 || key.E%2 == 0:
		return errors.New("e is even or less than 3")
	}
	return nil
}

// shortened is a text of others' as it may be logged: in ASCII, in quotes and not long.
func shortened(text string) string { return strconv.QuoteToASCII(cut(text, 100)) }

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// jwksClient is how an issuer's keys are fetched: it bounds the time and the size of the answer, and does not follow it to
// another host. Safe for concurrent use.
func jwksClient() *http.Client {
	return &http.Client{
		Timeout:   jwksTimeout,
		Transport: limitedBody{http.DefaultTransport},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
				return fmt.Errorf("redirect to %s refused", req.URL.Host)
			}
			return nil
		},
	}
}

type limitedBody struct{ next http.RoundTripper }

func (l limitedBody) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, jwksMaxSize), resp.Body}
	return resp, nil
}
