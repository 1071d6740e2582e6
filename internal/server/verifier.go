package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MinSecret is the least length of an HS256 key in bytes: RFC 7518, section 3.2 requires the size of the hash.
const MinSecret = 32

// notBeforeSkew is how far an issuer's clock may be ahead of ours. Expiry has no tolerance: a stream ends at exp.
const notBeforeSkew = time.Minute

// AuthConfig says which tokens are accepted. A secret or a JWKS URL is required; both may be set.
type AuthConfig struct {
	// Secret verifies HS256, MinSecret bytes at least. PreviousSecret does, too, so that the key can be changed.
	Secret, PreviousSecret string
	// JWKSURL is the URL of the keys for RS256 and ES256: https, or http with a loopback address.
	JWKSURL string
	// Issuer and Audience, if set, must equal the iss and AudienceClaim claims; they are required with JWKSURL.
	Issuer, Audience string
	// AudienceClaim is the claim that is compared with Audience: aud (a text or a list of texts), or client_id or azp (a text), for issuers
	// whose tokens have no aud. Default aud.
	AudienceClaim string
	// UserClaim is the claim that names the user: a text, or a whole number, which counts as its digits. Default sub, which must be a text
	// (RFC 7519, section 4.1.2).
	UserClaim string
	// GroupsClaim is the claim that names the groups of the user, a text, a whole number, or a list of these; empty: there are none.
	GroupsClaim string
	// MaxCached is how many verified tokens are cached, until they expire or keys change; 0: none.
	MaxCached int
}

// verifier verifies tokens. The configuration decides which kind of key an algorithm has, never the token: HS256 is verified with a secret
// only, RS256 and ES256 with keys of the JWKS only. Safe for concurrent use.
type verifier struct {
	cfg     AuthConfig // without its secrets
	trusted atomic.Pointer[trusted]
	keys    *jwks       // nil without JWKSURL
	cache   *tokenCache // nil without MaxCached
	// reloads counts the replacements of trusted. It grows after each.
	reloads atomic.Uint64

	faults   faultLog
	accepted atomic.Bool // some token was valid, so the keys are probably right
}

// trusted is the part of a verifier that Reload replaces, as a whole.
type trusted struct {
	secrets []jwt.VerificationKey
	parser  *jwt.Parser // accepts the configured algorithms only
}

func newVerifier(ctx context.Context, cfg AuthConfig, logger *slog.Logger) (*verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v := &verifier{cfg: cfg, faults: faultLog{logger: logger}}
	v.cfg.Secret, v.cfg.PreviousSecret = "", ""
	for _, warning := range cfg.Warnings() {
		logger.WarnContext(ctx, warning)
	}
	if cfg.JWKSURL != "" {
		v.keys = newJWKS(ctx, cfg.JWKSURL, logger)
	}
	v.trusted.Store(newTrusted(cfg))
	if cfg.MaxCached > 0 {
		v.cache = newTokenCache(cfg.MaxCached, v.generation)
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

// reload replaces the secrets. After an error nothing has changed.
func (v *verifier) reload(secret, previous string) error {
	cfg := v.cfg
	cfg.Secret, cfg.PreviousSecret = secret, previous
	if err := cfg.Validate(); err != nil {
		return err
	}
	for _, warning := range cfg.Warnings() {
		v.faults.logger.Warn(warning)
	}
	v.trusted.Store(newTrusted(cfg))
	v.reloads.Add(1)
	return nil
}

// refresh fetches the key set again. It may take up to 10 s. The limit of waiting requests does not apply to it.
func (v *verifier) refresh(ctx context.Context) {
	if v.keys != nil {
		_ = v.keys.fetch(ctx) // fails only if ctx is done
	}
}

func newParser(methods []string, issuer, audience string) *jwt.Parser {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
	}
	// Given an empty issuer or audience, the library would skip the check, too; here it is skipped on purpose.
	if issuer != "" {
		options = append(options, jwt.WithIssuer(issuer))
	}
	if audience != "" {
		options = append(options, jwt.WithAudience(audience))
	}
	return jwt.NewParser(options...)
}

// verify returns the user whom the token names. The error is errInvalidToken with the reason, or errNoKeys while the keys that could decide
// are not known.
func (v *verifier) verify(ctx context.Context, token string) (Viewer, error) {
	if v.cache == nil {
		who, err := v.check(ctx, token)
		return who.Viewer, err
	}
	hash := sha256.Sum256([]byte(token))
	if who, ok := v.cache.find(hash); ok {
		return who, nil
	}
	since := v.generation() // before the keys are used, because they may change at any time
	who, err := v.check(ctx, token)
	if err == nil {
		v.cache.add(hash, who, since)
	}
	return who.Viewer, err
}

// generation returns a number that grows after each change of secrets or keys.
func (v *verifier) generation() uint64 {
	if v.keys == nil {
		return v.reloads.Load()
	}
	return v.reloads.Load() + v.keys.generation.Load()
}

func (v *verifier) check(ctx context.Context, token string) (verifiedToken, error) {
	since := v.generation()
	parsed, c, err := v.parse(ctx, token)
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) && v.configured(parsed) && parsed.Method.Alg() != "HS256" {
		if v.keys.renew(ctx); v.generation() != since {
			parsed, c, err = v.parse(ctx, token)
		}
	}
	switch {
	case errors.Is(err, errNoKeys):
		return verifiedToken{}, withCause(errNoKeys, err)
	case err != nil:
		f := v.faultFor(err, token, parsed, c)
		v.logFault(ctx, f, err, parsed, c)
		if f == faultNotYet {
			err = &notYetValid{err, c.validFrom()}
		}
		return verifiedToken{}, withCause(errInvalidToken, err)
	}
	v.accepted.Store(true)
	who := verifiedToken{Viewer: Viewer{Viewer: c.viewer, Expires: c.expires.Time}}
	if c.notBefore != nil {
		who.from = c.notBefore.Add(-notBeforeSkew)
	}
	if len(who.Owners()) == 0 { // blanks name nobody
		v.logFault(ctx, faultNobody, nil, parsed, c)
	}
	return who, nil
}

func (v *verifier) parse(ctx context.Context, token string) (*jwt.Token, *claims, error) {
	c := &claims{cfg: &v.cfg}
	trusted := v.trusted.Load()
	parsed, err := trusted.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) { return v.key(ctx, t, trusted.secrets) })
	return parsed, c, err
}

// notYetValid is the cause of a refusal that ends at from, without any change of the token.
type notYetValid struct {
	error
	from time.Time
}

func (v *verifier) key(ctx context.Context, t *jwt.Token, secrets []jwt.VerificationKey) (any, error) {
	// RFC 7515, section 4.1.11: extensions that are marked critical and not understood make a token invalid.
	if _, ok := t.Header["crit"]; ok {
		return nil, faultCritical
	}
	switch t.Method.Alg() {
	case "HS256":
		return jwt.VerificationKeySet{Keys: secrets}, nil
	case "RS256", "ES256":
		return v.keys.key(ctx, t)
	}
	return nil, faultAlgorithm // not reached: the parser refuses other algorithms first
}
