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
	// jwksMaxTries is the most keys that a token's signature is checked with: all keys of its kid, or all keys if it has none. Each check
	// takes tens of microseconds, and anybody can cause it.
	jwksMaxTries = 16

	minRSABits = 2048  // RFC 7518, section 3.3
	maxRSABits = 16384 // the time to verify grows with the square
)

// KeySet is an issuer's published keys. It is immutable.
type KeySet struct {
	// LeftOut describes each key that cannot verify RS256 or ES256, and why. It has no key material.
	LeftOut []string
	// Odd describes what is unusual about the keys that are used.
	Odd []string
	// Private names the keys whose private half is published, too. They verify tokens, but anybody can sign with them.
	Private []string

	all   []crypto.PublicKey
	byKID map[string][]crypto.PublicKey // "": those without
	known map[string]bool               // the keys added so far; used by add only
}

// Len returns the number of keys that can verify a token.
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

// FetchKeySet fetches an issuer's keys. A set without any key that can verify a token is an error, which says why.
func FetchKeySet(ctx context.Context, address string) (*KeySet, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("not an address")
	}
	resp, err := jwksClient().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the address, which may contain a secret
		}
		return nil, fmt.Errorf("fetch from %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, jwksMaxSize))
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", req.URL.Host, err)
	}
	return parseKeySet(body)
}

// parseKeySet leaves out single keys that it cannot use, as RFC 7517, section 5 asks for. It ignores what follows the document.
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
		return nil, fmt.Errorf("the answer is the discovery document; set JWT_JWKS_URL to the address that it names, %s", quoteShort(document.Discovery))
	case err != nil || document.Keys == nil:
		return nil, errors.New(`the answer is no key set; want JSON with a list "keys"`)
	}
	set := &KeySet{byKID: make(map[string][]crypto.PublicKey)}
	for i, raw := range document.Keys {
		public, jwk, odd, err := parseKey(raw)
		name := "kid " + quoteShort(jwk.KID)
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

// add adds a key, unless the set has it already. Several keys may have the same kid; they are tried one after the other.
func (s *KeySet) add(kid string, key crypto.PublicKey) error {
	encoded, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return errors.New("the key cannot be encoded")
	}
	if s.known == nil {
		s.known = make(map[string]bool)
	}
	id := kid + "\x00" + string(encoded) // a map's key: comparing ten thousand keys pairwise would take half a minute
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

// parseKey returns a key that can verify RS256 or ES256, what could be read of its entry, and what is odd about it. It does not read a
// private half.
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
		// Auth0 publishes thumbprints of twice their length. No key is looked up by its thumbprint here.
		bare := m
		bare.X5T, bare.X5TS256 = "", ""
		odd = "x5t or x5t#S256 is not its certificate's thumbprint, which nothing here uses"
		if jwk, err = publicKey(bare); err != nil {
			return nil, m, "", errors.New(cut(err.Error(), 200)) // the text names members and shows no value
		}
	}
	if key, ok := jwk.Key().(*rsa.PublicKey); ok {
		return key, m, odd, checkRSA(key)
	}
	return jwk.Key().(*ecdsa.PublicKey), m, odd, nil // forSignatures refused all other types
}

func publicKey(m jwkset.JWKMarshal) (jwkset.JWK, error) {
	return jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipKeyOps: true})
}

func wrongLength(thumbprint string, size int) bool {
	return thumbprint != "" && base64.RawURLEncoding.DecodedLen(len(strings.TrimRight(thumbprint, "="))) != size
}

// forSignatures reports why a key is not for RS256 or ES256. A key set may also have keys for encryption or other algorithms, and by mistake
// even secrets.
func forSignatures(m jwkset.JWKMarshal) error {
	want := jwkset.AlgRS256
	switch {
	case m.KTY == jwkset.KtyRSA:
	case m.KTY == jwkset.KtyEC && m.CRV == jwkset.CrvP256:
		want = jwkset.AlgES256
	case m.KTY == jwkset.KtyEC:
		return fmt.Errorf("crv is %s; ES256 has P-256", quoteShort(string(m.CRV)))
	case m.KTY == jwkset.KtyOct:
		return errors.New("kty is oct: a secret, which does not belong into a key set and verifies nothing here")
	default:
		return fmt.Errorf("kty is %s; want RSA or EC", quoteShort(string(m.KTY)))
	}
	switch {
	case m.USE != "" && m.USE != jwkset.UseSig:
		return fmt.Errorf("use is %s; want sig", quoteShort(string(m.USE)))
	case len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify):
		return errors.New("key_ops has no verify")
	case m.ALG != "" && m.ALG != want:
		return fmt.Errorf("alg is %s; of this kty only %s is supported", quoteShort(string(m.ALG)), want)
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

// quoteShort makes a foreign text safe to log: in ASCII, in quotes, and cut to 100 bytes.
func quoteShort(text string) string { return strconv.QuoteToASCII(cut(text, 100)) }

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// jwksClient returns the client that fetches an issuer's keys: it limits the time, and follows no redirect to another host. Safe for
// concurrent use.
func jwksClient() *http.Client {
	return &http.Client{
		Timeout: jwksTimeout,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
				return fmt.Errorf("redirect to %s refused", req.URL.Host)
			}
			return nil
		},
	}
}
