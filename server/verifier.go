package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"auditstream/store"

	"github.com/golang-jwt/jwt/v5"
)

// MinSecret is the least length of an HS256 key in bytes: RFC 7518, section 3.2 asks for the size of the hash.
const MinSecret = 32

// notBeforeSkew is how far an issuer's clock may be ahead of ours. Expiry has no tolerance: a stream ends at exp.
const notBeforeSkew = 5 * time.Second

// AuthConfig says which tokens are accepted. A secret or a JWKS URL is required; both may be set.
type AuthConfig struct {
	// Secret verifies HS256, MinSecret bytes at least. PreviousSecret does too, while keys are being changed.
	Secret, PreviousSecret string
	// JWKSURL is where the keys for RS256 and ES256 are, with https, or with http on a loopback address.
	JWKSURL string
	// Issuer and Audience must match the iss and aud claims where set; they are required with JWKSURL.
	Issuer, Audience string
	// MaxCached is how many tokens that were found valid are remembered, until they expire or keys change; 0: none.
	MaxCached int
}

// viewer is who a verified token speaks for.
type viewer struct {
	store.Viewer
	expires time.Time
}

// key names the person for the limit of streams a user: the sub, or without one the address, compared as owners are.
func (v viewer) key() store.Owner {
	if owners := v.Owners(); len(owners) > 0 {
		return owners[0]
	}
	return store.Owner{}
}

// verifier checks tokens. The key follows the configured algorithm, never the other way round: a token that names HS256 is
// only ever held against a secret, one that names RS256 or ES256 only against the JWKS. Safe for concurrent use.
type verifier struct {
	cfg     AuthConfig // without its secrets
	trusted atomic.Pointer[trusted]
	keys    *jwks       // nil without JWKSURL
	known   *tokenCache // nil without MaxCached
	// reloads counts the times that trusted was replaced, afterwards.
	reloads atomic.Uint64

	logger   *slog.Logger
	accepted atomic.Bool // a token was found valid
	told     sync.Once   // of the first signature that was wrong before that
}

// trusted is what may change while the process lives, all of it at once.
type trusted struct {
	secrets []jwt.VerificationKey
	parser  *jwt.Parser // which knows whether HS256 is accepted
}

func newVerifier(ctx context.Context, cfg AuthConfig, logger *slog.Logger) (*verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v := &verifier{cfg: cfg, logger: logger}
	v.cfg.Secret, v.cfg.PreviousSecret = "", ""
	if cfg.JWKSURL != "" {
		keys, err := newJWKS(ctx, cfg.JWKSURL, logger)
		if err != nil {
			return nil, err
		}
		v.keys = keys
	}
	v.trusted.Store(newTrusted(cfg))
	if cfg.MaxCached > 0 {
		v.known = newTokenCache(cfg.MaxCached, v.generation)
	}
	return v, nil
}

func newTrusted(cfg AuthConfig) *trusted {
	t := &trusted{}
	var methods []string
	for _, secret := range []string{cfg.Secret, cfg.PreviousSecret} {
		if secret != "" {
			t.secrets = append(t.secrets, []byte(secret))
		}
	}
	if len(t.secrets) > 0 {
		methods = append(methods, "HS256")
	}
	if cfg.JWKSURL != "" {
		methods = append(methods, "RS256", "ES256")
	}
	t.parser = newParser(methods, cfg.Issuer, cfg.Audience)
	return t
}

// reload takes over other secrets. After an error all is as before.
func (v *verifier) reload(secret, previous string) error {
	cfg := v.cfg
	cfg.Secret, cfg.PreviousSecret = secret, previous
	if err := cfg.Validate(); err != nil {
		return err
	}
	v.trusted.Store(newTrusted(cfg))
	v.reloads.Add(1)
	return nil
}

// refresh fetches the key set anew, for which it may wait up to 10 s, however many requests wait for that, too.
func (v *verifier) refresh(ctx context.Context) {
	if v.keys != nil {
		_ = v.keys.fetch(ctx, rand.Text()) // nobody's id, so it does fetch; it fails when ctx is done alone
	}
}

func newParser(methods []string, issuer, audience string) *jwt.Parser {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
	}
	// An empty issuer or audience would switch the check off inside the library as well; here it is on purpose.
	if issuer != "" {
		options = append(options, jwt.WithIssuer(issuer))
	}
	if audience != "" {
		options = append(options, jwt.WithAudience(audience))
	}
	return jwt.NewParser(options...)
}

// verify returns who the token speaks for. The error is errInvalidToken with the reason, or errNoKeys while the keys to
// decide with are not there.
func (v *verifier) verify(ctx context.Context, token string) (viewer, error) {
	if v.known == nil {
		who, err := v.check(ctx, token)
		return who.viewer, err
	}
	hash := sha256.Sum256([]byte(token))
	if who, ok := v.known.find(hash); ok {
		return who, nil
	}
	since := v.generation() // before the keys are looked at, which may change at any time
	who, err := v.check(ctx, token)
	if err == nil {
		v.known.add(hash, who, since)
	}
	return who.viewer, err
}

// generation grows whenever keys have changed: the sum of two numbers that both do.
func (v *verifier) generation() uint64 {
	if v.keys == nil {
		return v.reloads.Load()
	}
	return v.reloads.Load() + v.keys.generation.Load()
}

func (v *verifier) check(ctx context.Context, token string) (verifiedToken, error) {
	var c claims
	trusted := v.trusted.Load()
	_, err := trusted.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) { return v.key(ctx, t, trusted.secrets) })
	switch {
	case errors.Is(err, errNoKeys):
		return verifiedToken{}, because(errNoKeys, err)
	case err != nil:
		v.tell(err)
		return verifiedToken{}, because(errInvalidToken, err)
	}
	v.accepted.Store(true)
	who := verifiedToken{viewer: viewer{expires: c.ExpiresAt.Time}}
	if strings.TrimSpace(c.Subject) != "" { // or a user_id of blanks would be somebody's
		who.Subject = c.Subject
	}
	if c.NotBefore != nil {
		who.from = c.NotBefore.Add(-notBeforeSkew)
	}
	if c.EmailVerified && strings.TrimSpace(c.Email) != "" {
		who.Email = c.Email
	}
	return who, nil
}

// tell says once that the key may be the wrong one. Later, when tokens have been valid, a bad signature is a client's fault, and
// is for the debug log.
func (v *verifier) tell(err error) {
	if !errors.Is(err, jwt.ErrTokenSignatureInvalid) || v.accepted.Load() {
		return
	}
	v.told.Do(func() {
		v.logger.Warn("a token's signature is refused, and none has been valid yet: set JWT_SECRET, or JWT_JWKS_URL, to the key with which your application signs its users' tokens", "error", err)
	})
}

func (v *verifier) key(ctx context.Context, t *jwt.Token, secrets []jwt.VerificationKey) (any, error) {
	// RFC 7515, section 4.1.11: extensions that are marked critical and not understood make a token invalid.
	if _, ok := t.Header["crit"]; ok {
		return nil, errors.New("the crit header is not supported")
	}
	switch t.Method.Alg() {
	case "HS256":
		return jwt.VerificationKeySet{Keys: secrets}, nil
	case "RS256", "ES256":
		return v.keys.key(ctx, t)
	}
	return nil, fmt.Errorf("algorithm %s is not configured", t.Method.Alg()) // the parser has refused it before
}

// claims are the claims that count. The zero EmailVerified means that an issuer said that the address is not verified.
type claims struct {
	jwt.RegisteredClaims
	Email         string        `json:"email"`
	EmailVerified emailVerified `json:"email_verified"`
}

// claimNames are the names that claims are read by.
var claimNames = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "email", "email_verified"}

// UnmarshalJSON presets EmailVerified: an issuer that does not send it leaves the address usable.
//
// Claim names have a case (RFC 7519, section 10.1.1), but encoding/json ignores it: where users may choose claims of their
// own, one called "SUB" would replace the issuer's. So only the exact names are passed on.
func (c *claims) UnmarshalJSON(data []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	exact := make(map[string]json.RawMessage, len(claimNames))
	for _, name := range claimNames {
		if value, ok := all[name]; ok {
			exact[name] = value
		}
	}
	data, err := json.Marshal(exact)
	if err != nil {
		return err
	}
	type plain claims
	p := plain{EmailVerified: true}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*c = claims(p)
	return nil
}

// GetNotBefore allows for an issuer's clock that is a little ahead; see [notBeforeSkew].
func (c claims) GetNotBefore() (*jwt.NumericDate, error) {
	if c.NotBefore == nil {
		return nil, nil
	}
	return jwt.NewNumericDate(c.NotBefore.Add(-notBeforeSkew)), nil
}

// emailVerified is the claim email_verified. Some issuers send it as text. Only true and "true" are a yes.
type emailVerified bool

func (e *emailVerified) UnmarshalJSON(data []byte) error {
	text := strings.ToLower(string(data))
	*e = text == `true` || text == `"true"` || text == `null`
	return nil
}
