package server

import (
	"crypto/sha256"
	"sync"
	"time"
)

// tokenCache holds the viewers of verified tokens, so that a token is verified once and not at each request. It finds tokens by their
// SHA-256 and stores none. An entry lasts until the token's exp, or until the keys change. Refused tokens are not in it. Safe for concurrent
// use.
type tokenCache struct {
	most int // the most entries
	keys func() uint64

	mu      sync.Mutex
	viewers map[[sha256.Size]byte]verifiedToken
	since   uint64 // the value of keys when viewers were verified
}

type verifiedToken struct {
	Viewer
	from time.Time // nbf, in case the clock is set back
}

// newTokenCache returns a cache of at most most tokens; keys returns a number that grows after each change of keys.
func newTokenCache(most int, keys func() uint64) *tokenCache {
	return &tokenCache{most: most, keys: keys, viewers: make(map[[sha256.Size]byte]verifiedToken)}
}

// find returns the viewer of a token if it is in the cache and still valid.
func (c *tokenCache) find(token [sha256.Size]byte) (Viewer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who, ok := c.viewers[token]
	if !ok || c.since != c.keys() {
		return Viewer{}, false
	}
	now := time.Now()
	if !now.Before(who.Expires) {
		delete(c.viewers, token)
		return Viewer{}, false
	}
	return who.Viewer, !now.Before(who.from)
}

// add adds a token that was verified; since is the value of keys before the verification.
func (c *tokenCache) add(token [sha256.Size]byte, who verifiedToken, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case since < c.since:
		return // the keys that verified it may have been withdrawn meanwhile
	case since > c.since:
		clear(c.viewers)
		c.since = since
	}
	if len(c.viewers) >= c.most {
		// Any entry, not the oldest: when more tokens take turns than the cache has room for, some are still found.
		for one := range c.viewers {
			delete(c.viewers, one)
			break
		}
	}
	c.viewers[token] = who
}
