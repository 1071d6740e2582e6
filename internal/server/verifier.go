package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"auditstream/internal/store"

	"github.com/golang-jwt/jwt/v5"
)

// MinSecret is the least length of an HS256 key in bytes: RFC 7518, section 3.2 asks for the size of the hash.
const MinSecret = 32

// notBeforeSkew is how far an issuer's clock may be ahead of ours. Expiry has no tolerance: a stream ends at exp.
const notBeforeSkew = time.Minute

// AuthConfig says which tokens are accepted. A secret or a JWKS URL is required; both may be set.
type AuthConfig struct {
	// Secret verifies HS256, MinSecret bytes at least. PreviousSecret does too, while keys are being changed.
	Secret, PreviousSecret string
	// JWKSURL is where the keys for RS256 and ES256 are, with https, or with http on a loopback address.
	JWKSURL string
	// Issuer and Audience must match the iss and AudienceClaim claims where set; they are required with JWKSURL.
	Issuer, Audience string
	// AudienceClaim is the one claim that says for whom a token is: aud (a text or a list of them), or client_id or azp (a text),
	// which issuers use whose tokens have no aud. Default aud.
	AudienceClaim string
	// UserClaim is the claim that names the user: a text, or a whole number, which counts as its digits. Without it that is sub,
	// which must be a text (RFC 7519, section 4.1.2).
	UserClaim string
	// GroupsClaim is the claim that names the groups of the user, a text or a list of texts; empty: there are none.
	GroupsClaim string
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

	faults   faultLog
	accepted atomic.Bool // a token was found valid
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
	for _, warning := range cfg.Warnings() {
		v.faults.logger.Warn(warning)
	}
	v.trusted.Store(newTrusted(cfg))
	v.reloads.Add(1)
	return nil
}

// refresh fetches the key set anew, for which it may wait up to 10 s, however many requests wait for that, too.
func (v *verifier) refresh(ctx context.Context) {
	if v.keys != nil {
		_ = v.keys.fetch(ctx) // fails when ctx is done alone
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
	c := claims{cfg: &v.cfg}
	trusted := v.trusted.Load()
	parsed, err := trusted.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) { return v.key(ctx, t, trusted.secrets) })
	switch {
	case errors.Is(err, errNoKeys):
		return verifiedToken{}, because(errNoKeys, err)
	case err != nil:
		f := v.fault(err, token, parsed, &c)
		v.tell(ctx, f, err, parsed, &c)
		if f == faultNotYet {
			err = &notYetValid{err, c.validFrom()}
		}
		return verifiedToken{}, because(errInvalidToken, err)
	}
	v.accepted.Store(true)
	who := verifiedToken{viewer: viewer{Viewer: c.viewer, expires: c.expires.Time}}
	if c.notBefore != nil {
		who.from = c.notBefore.Add(-notBeforeSkew)
	}
	if len(who.viewer.Owners()) == 0 { // texts without anything that can be seen are nobody's
		v.tell(ctx, faultNobody, nil, parsed, &c)
	}
	return who, nil
}

// notYetValid is the cause of a refusal that ends by itself.
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
	return nil, faultAlgorithm // the parser has refused it before
}
