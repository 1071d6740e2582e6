package server

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"auditstream/internal/store"

	"golang.org/x/time/rate"
)

// refusalLimit bounds what the database is asked for in vain: the audits that a user, and a client address, asks for and may
// not see. What goes beyond is answered before anything is read. Safe for concurrent use.
type refusalLimit struct {
	users     *refusalBuckets[store.Owner]
	addresses *refusalBuckets[netip.Addr]
	warn      rate.Sometimes
}

func newRefusalLimit(perUser, perAddress int) *refusalLimit {
	return &refusalLimit{
		users:     newRefusalBuckets[store.Owner](perUser),
		addresses: newRefusalBuckets[netip.Addr](perAddress),
		warn:      rate.Sometimes{First: 1, Interval: time.Minute},
	}
}

// exceeded reports whether the user or the address of a request has had too much refused of late.
func (l *refusalLimit) exceeded(who viewer, r *http.Request) bool {
	return l.users.empty(who.key()) || l.addresses.empty(requestAddr(r))
}

// count takes note of audits that were read and refused. Requests under way at the same time may go beyond the limit; it takes
// the longer until the next ones are served.
func (l *refusalLimit) count(who viewer, r *http.Request, audits int) {
	if audits > 0 {
		l.users.take(who.key(), audits)
		l.addresses.take(requestAddr(r), audits)
	}
}

// tooManyRefused accounts for a request beyond the limit. The log names the settings now and then.
func (s *Handler) tooManyRefused() {
	s.metrics.refused.WithLabelValues(refusedLabels[errTooManyRefused]).Inc()
	s.refusals.warn.Do(func() {
		s.cfg.Logger.Warn("a user or an address asks for more audits that it may not see than SSE_MAX_REFUSED_PER_USER or HTTP_MAX_REFUSED_PER_ADDRESS allows; behind a proxy, whose address all clients have, set the second to 0",
			"per_user", s.cfg.MaxRefusedPerUser, "per_address", s.cfg.MaxRefusedPerAddress)
	})
}

// maxBuckets bounds the memory, about 150 bytes each. Beyond it any one is forgotten, whose owner begins anew.
const maxBuckets = 10_000

// refusalBuckets are token buckets of those who were refused something. A key may be long; it is known by its hash.
type refusalBuckets[K comparable] struct {
	perMinute int // 0: no limit
	seed      maphash.Seed

	mu      sync.Mutex
	buckets map[uint64]*rate.Limiter
}

func newRefusalBuckets[K comparable](perMinute int) *refusalBuckets[K] {
	return &refusalBuckets[K]{perMinute: perMinute, seed: maphash.MakeSeed(), buckets: make(map[uint64]*rate.Limiter)}
}

func (b *refusalBuckets[K]) empty(key K) bool {
	if b.perMinute == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.buckets[maphash.Comparable(b.seed, key)]
	return bucket != nil && bucket.Tokens() < 1
}

// take takes tokens that need not be there: a bucket may owe some.
func (b *refusalBuckets[K]) take(key K, tokens int) {
	if b.perMinute == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	hash := maphash.Comparable(b.seed, key)
	if b.buckets[hash] == nil {
		if len(b.buckets) >= maxBuckets {
			for other := range b.buckets {
				delete(b.buckets, other)
				break
			}
		}
		b.buckets[hash] = rate.NewLimiter(rate.Limit(b.perMinute)/60, b.perMinute)
	}
	b.buckets[hash].ReserveN(time.Now(), min(tokens, b.perMinute)) // more than a bucket holds is never given
}
