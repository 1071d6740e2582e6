package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	jwksInterval = 10 * time.Minute // between periodic refreshes
	// jwksUnknownKID is the least time between refreshes that unknown key ids and wrong signatures cause, however many tokens carry them.
	jwksUnknownKID = 5 * time.Second
	// jwksMaxWaiting is how many requests may wait for such a refresh; more are refused.
	jwksMaxWaiting = 256
	// jwksMaxLogged is how many odd keys of a set the log names.
	jwksMaxLogged = 10
)

// jwks is an issuer's published key set. An unknown key id, or a wrong signature, causes a refresh, because issuers rotate keys, but at most
// one in jwksUnknownKID. A token with an unknown key id that comes in between waits for the next refresh and is not refused. So forged key ids can neither flood the
// issuer nor lock out the first users of a new key. While the issuer does not answer, or has no usable key, the known keys stay. Safe for
// concurrent use.
type jwks struct {
	load   func(context.Context) (*KeySet, error) // fetches from the issuer
	logger *slog.Logger

	set atomic.Pointer[KeySet] // nil before the first fetch succeeds
	// generation counts the replacements of set. It grows after each, so a goroutine that reads the new number finds the new keys.
	generation atomic.Uint64

	waiting  chan struct{} // holds one token for each request that waits
	fetching chan struct{} // capacity 1: a lock, which a request can give up waiting for
	// Only the holder of fetching uses these fields.
	started time.Time       // when fetchNow began the last refresh
	ended   time.Time       // when that was over
	logged  map[string]bool // what was logged about the keys of the last set
}

// newJWKS fetches the keys, and refreshes them every jwksInterval until ctx is done. If the first fetch fails, it is logged, and a later
// one may succeed: the issuer may start after us.
func newJWKS(ctx context.Context, address string, logger *slog.Logger) *jwks {
	k := &jwks{
		load:    func(ctx context.Context) (*KeySet, error) { return FetchKeySet(ctx, address) },
		logger:  logger,
		waiting: make(chan struct{}, jwksMaxWaiting), fetching: make(chan struct{}, 1),
	}
	k.refresh(ctx)
	go func() {
		ticker := time.NewTicker(jwksInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				_ = k.fetch(ctx) // fails only if ctx is done
			}
		}
	}()
	return k
}

// key returns the keys that the token may be signed with. The error wraps errNoKeys when that cannot be decided now.
func (k *jwks) key(ctx context.Context, t *jwt.Token) (any, error) {
	value, named := t.Header["kid"]
	kid, isText := value.(string)
	if named && (!isText || kid == "" || len(kid) > jwksMaxKID) {
		return nil, faultKID // no issuer makes such a kid, so a fetch cannot help
	}
	set := k.set.Load()
	if set == nil || named && len(set.byKID[kid]) == 0 {
		if err := k.fetchForRequest(ctx); err != nil {
			return nil, err
		}
		set = k.set.Load()
	}
	if set == nil {
		return nil, fmt.Errorf("%w: no key set was ever loaded", errNoKeys)
	}
	return set.find(t.Method.Alg(), kid, named)
}

// renew fetches the key set again, unless that was done in the last jwksUnknownKID or too many requests wait. A wrong signature calls it: an
// issuer may have replaced a key without giving it another kid.
func (k *jwks) renew(ctx context.Context) {
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return
	}
	select {
	case k.fetching <- struct{}{}:
		defer func() { <-k.fetching }()
	case <-ctx.Done():
		return
	}
	if time.Since(k.ended) >= jwksUnknownKID { // its end counts: all who waited for a slow issuer would ask it again, one after the other
		k.fetchNow(ctx)
	}
}

// fetchForRequest returns after a fetch of the key set that began after the call, or when ctx is done. At most jwksMaxWaiting requests wait.
func (k *jwks) fetchForRequest(ctx context.Context) error {
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return fmt.Errorf("%w: too many requests wait for an unknown key id", errNoKeys)
	}
	return k.fetch(ctx)
}

// fetch is fetchForRequest without the limit, for our own refreshes.
func (k *jwks) fetch(ctx context.Context) error {
	asked := time.Now()
	select {
	case k.fetching <- struct{}{}:
		defer func() { <-k.fetching }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoKeys, context.Cause(ctx))
	}
	if k.started.After(asked) {
		return nil // another caller's fetch began after our call
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoKeys, context.Cause(ctx))
	case <-time.After(time.Until(k.started.Add(jwksUnknownKID))):
	}
	k.fetchNow(ctx)
	return nil
}

// fetchNow is called by the holder of fetching.
func (k *jwks) fetchNow(ctx context.Context) {
	k.started = time.Now()
	k.refresh(context.WithoutCancel(ctx)) // it serves all who wait, so it must not end with this request
	k.ended = time.Now()
}

// refresh replaces the keys by the issuer's. If that fails, the error is logged and the known keys stay.
func (k *jwks) refresh(ctx context.Context) {
	set, err := k.load(ctx)
	if err != nil {
		k.logger.WarnContext(ctx, "signing keys not refreshed; the known ones stay in use", "error", fmt.Errorf("JWT_JWKS_URL: %w", err))
		return
	}
	k.set.Store(set)
	k.generation.Add(1)
	k.logOddKeys(ctx, set)
}

// logOddKeys logs what is odd about the keys, unless it was logged for the last set.
func (k *jwks) logOddKeys(ctx context.Context, set *KeySet) {
	logged, lines := make(map[string]bool), 0
	say := func(level slog.Level, message string, keys []string) {
		for _, key := range keys {
			if logged[key] = true; k.logged[key] {
				continue
			}
			if lines++; lines <= jwksMaxLogged {
				k.logger.Log(ctx, level, message, "key", key)
			}
		}
	}
	say(slog.LevelError, "the issuer publishes the private half of a signing key: anybody can make tokens that are accepted; have the issuer replace the key", set.Private)
	say(slog.LevelWarn, "a key of JWT_JWKS_URL is left out: tokens that it signed are refused", set.LeftOut)
	say(slog.LevelWarn, "a key of JWT_JWKS_URL is unusual, and used", set.Odd)
	if lines > jwksMaxLogged {
		k.logger.WarnContext(ctx, "more keys of JWT_JWKS_URL are unusual; auditstream doctor counts them", "keys", lines-jwksMaxLogged)
	}
	k.logged = logged
}
