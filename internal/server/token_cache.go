package server

import (
	"crypto/sha256"
	"sync"
	"time"
)

// tokenCache remembers whom tokens speak for, so that a token is verified once and not with every request of its holder. It knows
// tokens by their SHA-256 and holds none. Only what was accepted is in it, until the token's exp and no longer than the keys that
// it was accepted by. Safe for concurrent use.
type tokenCache struct {
	most int // entries
	keys func() uint64

	mu      sync.Mutex
	viewers map[[sha256.Size]byte]verifiedToken
	since   uint64 // what keys was when viewers were verified
}

type verifiedToken struct {
	viewer
	from time.Time // nbf, in case the clock is set back
}

// newTokenCache has room for most tokens; keys is a number that grows with every change of keys, after the change.
func newTokenCache(most int, keys func() uint64) *tokenCache {
	return &tokenCache{most: most, keys: keys, viewers: make(map[[sha256.Size]byte]verifiedToken)}
}

// find returns what is remembered of a token, if it is still valid.
func (c *tokenCache) find(token [sha256.Size]byte) (viewer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who, ok := c.viewers[token]
	if !ok || c.since != c.keys() {
		return viewer{}, false
	}
	now := time.Now()
	if !now.Before(who.expires) {
		delete(c.viewers, token)
		return viewer{}, false
	}
	return who.viewer, !now.Before(who.from)
}

// add remembers a token that was found valid by keys that were not older than since.
func (c *tokenCache) add(token [sha256.Size]byte, who verifiedToken, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case since < c.since:
		return // by keys that may have been withdrawn meanwhile
	case since > c.since:
		clear(c.viewers)
		c.since = since
	}
	if len(c.viewers) >= c.most {
		// Any one: a crowd that is larger than the cache then still finds a part of itself, which the oldest would not be.
		for one := range c.viewers {
			delete(c.viewers, one)
			break
		}
	}
	c.viewers[token] = who
}
