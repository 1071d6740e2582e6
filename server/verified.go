package server

import (
	"crypto/sha256"
	"sync"
	"time"
)

// verified remembers whom tokens speak for, so that a token is verified once and not with every request of its holder. It knows
// tokens by their SHA-256 and holds none. Only what was accepted is in it, until the token's exp and no longer than the keys that
// it was accepted by. Safe for concurrent use.
type verified struct {
	most int // entries
	keys func() uint64

	mu      sync.Mutex
	viewers map[[sha256.Size]byte]remembered
	since   uint64 // what keys was when viewers were verified
}

type remembered struct {
	viewer
	from time.Time // nbf, in case the clock is set back
}

// newVerified has room for most tokens; keys is a number that grows with every change of keys, after the change.
func newVerified(most int, keys func() uint64) *verified {
	return &verified{most: most, keys: keys, viewers: make(map[[sha256.Size]byte]remembered)}
}

// find returns what is remembered of a token, if it is still valid.
func (v *verified) find(token [sha256.Size]byte) (viewer, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	who, ok := v.viewers[token]
	if !ok || v.since != v.keys() {
		return viewer{}, false
	}
	now := time.Now()
	if !now.Before(who.expires) {
		delete(v.viewers, token)
		return viewer{}, false
	}
	return who.viewer, !now.Before(who.from)
}

// add remembers a token that was found valid by keys that were not older than since.
func (v *verified) add(token [sha256.Size]byte, who remembered, since uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case since < v.since:
		return // by keys that may have been withdrawn meanwhile
	case since > v.since:
		clear(v.viewers)
		v.since = since
	}
	if len(v.viewers) >= v.most {
		// Any one: a crowd that is larger than the cache then still finds a part of itself, which the oldest would not be.
		for one := range v.viewers {
			delete(v.viewers, one)
			break
		}
	}
	v.viewers[token] = who
}
