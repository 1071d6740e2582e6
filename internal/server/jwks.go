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
	jwksInterval = 10 * time.Minute // between refreshes that nobody asked for
	// jwksUnknownKID is the least time between refreshes that unknown key ids cause, however many tokens carry them.
	jwksUnknownKID = 5 * time.Second
	// jwksMaxWaiting is how many requests may wait for such a refresh.
	jwksMaxWaiting = 256
	// jwksMaxTold is how many keys of a set the log names.
	jwksMaxTold = 10
)

// jwks is an issuer's published key set. An unknown key id makes it look again, because issuers rotate keys, but at most
// every jwksUnknownKID; a token that comes in between waits for that look instead of being refused, so that forged key ids
// can neither hammer the issuer nor lock out the first users of a new key. While an issuer answers without a usable key, or not at
// all, the known ones stay. Safe for concurrent use.
type jwks struct {
	load   func(context.Context) (*KeySet, error) // asks the issuer
	logger *slog.Logger

	set atomic.Pointer[KeySet] // nil before the first one
	// generation counts the times that set was replaced, afterwards: who has seen the new number finds the new keys.
	generation atomic.Uint64

	waiting  chan struct{} // one token for each request that waits
	fetching chan struct{} // capacity 1: filled by who fetches; a lock that a request can stop waiting for
	// What follows belongs to who fetches.
	started time.Time       // when the last fetch began that was asked for
	told    map[string]bool // what the log said about the keys of the last set
}

// newJWKS fetches the keys, and again from time to time until ctx is done. The issuer may come up after us.
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
				_ = k.fetch(ctx) // fails when ctx is done alone
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
		return nil, faultKID // no issuer's, so nothing that a fetch might find
	}
	set := k.set.Load()
	if set == nil || named && len(set.byKID[kid]) == 0 {
		if err := k.fetchFor(ctx); err != nil {
			return nil, err
		}
		set = k.set.Load()
	}
	if set == nil {
		return nil, fmt.Errorf("%w: no key set was ever loaded", errNoKeys)
	}
	return set.find(t.Method.Alg(), kid, named)
}

// fetchFor returns after a fetch of the key set that began after the call, or when ctx is done. For requests, of which a limited
// number may wait.
func (k *jwks) fetchFor(ctx context.Context) error {
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return fmt.Errorf("%w: too many requests wait for an unknown key id", errNoKeys)
	}
	return k.fetch(ctx)
}

// fetch is fetchFor without the limit.
func (k *jwks) fetch(ctx context.Context) error {
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
	k.refresh(context.WithoutCancel(ctx)) // it serves all who wait, so it must not end with the request that happens to make it
	return nil
}

// refresh takes over what the issuer has. What it fails with is logged; the known keys stay.
func (k *jwks) refresh(ctx context.Context) {
	set, err := k.load(ctx)
	if err != nil {
		k.logger.WarnContext(ctx, "signing keys not refreshed; the known ones stay in use", "error", fmt.Errorf("JWT_JWKS_URL: %w", err))
		return
	}
	k.set.Store(set)
	k.generation.Add(1)
	k.tell(ctx, set)
}

// tell logs what is odd about keys, unless it was so last time.
func (k *jwks) tell(ctx context.Context, set *KeySet) {
	told, lines := make(map[string]bool), 0
	say := func(level slog.Level, message string, keys []string) {
		for _, key := range keys {
			if told[key] = true; k.told[key] {
				continue
			}
			if lines++; lines <= jwksMaxTold {
				k.logger.Log(ctx, level, message, "key", key)
			}
		}
	}
	say(slog.LevelError, "the issuer publishes the private half of a signing key: anybody can make tokens that are accepted; have the issuer replace the key", set.Private)
	say(slog.LevelWarn, "a key of JWT_JWKS_URL is left out: tokens that it signed are refused", set.LeftOut)
	say(slog.LevelWarn, "a key of JWT_JWKS_URL is unusual, and used", set.Odd)
	if lines > jwksMaxTold {
		k.logger.WarnContext(ctx, "more keys of JWT_JWKS_URL are unusual; auditstream doctor counts them", "keys", lines-jwksMaxTold)
	}
	k.told = told
}
