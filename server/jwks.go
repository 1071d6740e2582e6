package server

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

const (
	jwksTimeout  = 5 * time.Second
	jwksInterval = 10 * time.Minute // between refreshes that nobody asked for
	jwksMaxSize  = 1 << 20          // bytes of a key set that are read
	jwksMaxKID   = 256              // bytes
	// jwksUnknownKID is the least time between refreshes that unknown key ids cause, however many tokens carry them.
	jwksUnknownKID = 5 * time.Second
	// jwksMaxWaiting is how many requests may wait for such a refresh.
	jwksMaxWaiting = 256
)

// jwks is an issuer's published key set. An unknown key id makes it look again, because issuers rotate keys, but at most
// every jwksUnknownKID; a token that comes in between waits for that look instead of being refused, so that forged key ids
// can neither hammer the issuer nor lock out the first users of a new key. Safe for concurrent use.
type jwks struct {
	storage jwkset.Storage  // what is known
	remote  jwkset.Storage  // the same; reading an unknown id from it fetches
	keyfunc keyfunc.Keyfunc // on storage
	// generation counts the times that storage was replaced.
	generation *atomic.Uint64

	waiting  chan struct{} // one token for each request that waits
	fetching chan struct{} // capacity 1: filled by the request that fetches; a lock that a request can stop waiting for
	started  time.Time     // when the last fetch for an unknown id began; belongs to who fetches
}

func newJWKS(ctx context.Context, url string, logger *slog.Logger) (*jwks, error) {
	generation := new(atomic.Uint64)
	storage, err := jwkset.NewStorageFromHTTP(url, jwkset.HTTPClientStorageOptions{
		Client:                    JWKSClient(),
		Ctx:                       ctx,
		HTTPTimeout:               jwksTimeout,
		NoErrorReturnFirstHTTPReq: true, // the issuer may come up after us
		RefreshErrorHandler: func(ctx context.Context, err error) {
			logger.WarnContext(ctx, "signing keys not refreshed; the known ones stay in use", "error", err)
		},
		RefreshInterval: jwksInterval,
		Storage:         lastGoodKeys{jwkset.NewMemoryStorage(), generation},
	})
	if err != nil {
		return nil, fmt.Errorf("JWT_JWKS_URL: %w", err)
	}
	remote, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{url: storage},
		RateLimitWaitMax:  jwksTimeout,                  // bounds the fetch as well
		RefreshUnknownKID: rate.NewLimiter(rate.Inf, 1), // fetchFor limits
	})
	if err != nil {
		return nil, fmt.Errorf("JWT_JWKS_URL: %w", err)
	}
	kf, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: storage})
	if err != nil {
		return nil, fmt.Errorf("JWT_JWKS_URL: %w", err)
	}
	return &jwks{storage: storage, remote: remote, keyfunc: kf, generation: generation,
		waiting: make(chan struct{}, jwksMaxWaiting), fetching: make(chan struct{}, 1)}, nil
}

// key returns the key that the token names, or all keys when it names none. The error wraps errNoKeys when that cannot be
// decided now.
func (k *jwks) key(ctx context.Context, t *jwt.Token) (any, error) {
	value, named := t.Header[jwkset.HeaderKID]
	kid, isText := value.(string)
	switch {
	case named && (!isText || kid == ""):
		return nil, errors.New("kid is not a text, or empty") // no issuer's, so nothing that a fetch might find
	case len(kid) > jwksMaxKID:
		return nil, fmt.Errorf("kid of %d bytes; the limit is %d", len(kid), jwksMaxKID)
	}
	_, err := k.storage.KeyRead(ctx, kid)
	if errors.Is(err, jwkset.ErrKeyNotFound) && (named || k.empty(ctx)) {
		if err := k.fetchFor(ctx, kid); err != nil {
			return nil, err
		}
	}
	if k.empty(ctx) {
		return nil, fmt.Errorf("%w: no key set was ever loaded", errNoKeys)
	}
	return k.keyfunc.KeyfuncCtx(ctx)(t)
}

func (k *jwks) empty(ctx context.Context) bool {
	keys, err := k.storage.KeyReadAll(ctx)
	return err == nil && len(keys) == 0
}

// fetchFor returns after a fetch of the key set that began after the call, or when ctx is done. For requests, of which a limited
// number may wait.
func (k *jwks) fetchFor(ctx context.Context, kid string) error {
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return fmt.Errorf("%w: too many requests wait for an unknown key id", errNoKeys)
	}
	return k.fetch(ctx, kid)
}

// fetch is fetchFor without the limit.
func (k *jwks) fetch(ctx context.Context, kid string) error {
	asked := time.Now()
	select {
	case k.fetching <- struct{}{}:
		defer func() { <-k.fetching }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoKeys, context.Cause(ctx))
	}
	if k.started.After(asked) {
		return nil // somebody else's fetch answers for us
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoKeys, context.Cause(ctx))
	case <-time.After(time.Until(k.started.Add(jwksUnknownKID))):
	}
	k.started = time.Now()
	// The fetch serves all who wait, so it must not end with the request that happens to make it. What it failed with, if
	// it did, went to the RefreshErrorHandler; the key is then still unknown.
	_, _ = k.remote.KeyRead(context.WithoutCancel(ctx), kid)
	return nil
}

// lastGoodKeys holds the keys that can verify a token, and keeps the known ones when an issuer answers without any: with an
// error page that happens to be JSON, or with nothing.
type lastGoodKeys struct {
	jwkset.Storage
	generation *atomic.Uint64
}

func (s lastGoodKeys) KeyReplaceAll(ctx context.Context, keys []jwkset.JWK) error {
	usable := slices.DeleteFunc(slices.Clone(keys), func(key jwkset.JWK) bool { return !CanVerify(key) })
	if len(usable) == 0 {
		return errors.New("the key set has no usable key")
	}
	defer s.generation.Add(1) // afterwards: who has seen the new number finds the new keys
	return s.Storage.KeyReplaceAll(ctx, usable)
}

// CanVerify reports whether a key is for RS256 or ES256. A key set may hold others: for encryption, for other algorithms, and
// by mistake even secrets.
func CanVerify(key jwkset.JWK) bool {
	var public any = key.Key()
	if private, ok := public.(interface{ Public() crypto.PublicKey }); ok {
		public = private.Public()
	}
	m := key.Marshal()
	if m.USE == jwkset.UseEnc {
		return false
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		return (m.ALG == "" || m.ALG == jwkset.AlgRS256) && k.N.BitLen() >= minRSABits && k.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey:
		return (m.ALG == "" || m.ALG == jwkset.AlgES256) && k.Curve == elliptic.P256()
	}
	return false
}

const (
	minRSABits = 2048  // RFC 7518, section 3.3
	maxRSABits = 16384 // verifying takes time that grows with the square
)

// JWKSClient is how an issuer's keys are fetched: it bounds the time and the size of the answer, and does not follow it to
// another host. Safe for concurrent use.
func JWKSClient() *http.Client {
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
