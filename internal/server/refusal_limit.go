package server

import (
	"hash/maphash"
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"auditstream/internal/store"

	"golang.org/x/time/rate"
)

// refusalLimit limits the reads that end in a refusal: how many rows a user, and a client address, may ask for without the right to see
// them. Further requests are refused without a read. Safe for concurrent use.
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

// exceeded reports whether the user or the address of a request is over its limit.
func (l *refusalLimit) exceeded(who Viewer, r *http.Request) bool {
	return l.users.empty(who.key()) || l.addresses.empty(requestAddr(r))
}

// count counts rows that were read and refused. Concurrent requests may go over the limit; then it takes longer until the next request is
// served.
func (l *refusalLimit) count(who Viewer, r *http.Request, audits int) {
	if audits > 0 {
		l.users.take(who.key(), audits)
		l.addresses.take(requestAddr(r), audits)
	}
}

// tooManyRefused counts a request over the limit, and logs the settings at most once a minute.
func (s *Handler) tooManyRefused() {
	s.metrics.refused.WithLabelValues(refusedLabels[errTooManyRefused]).Inc()
	s.refusals.warn.Do(func() {
		s.cfg.Logger.Warn("a user or an address asks for more audits that it may not see than SSE_MAX_REFUSED_PER_USER or HTTP_MAX_REFUSED_PER_ADDRESS allows; behind a proxy, whose address all clients have, set the second to 0",
			"per_user", s.cfg.MaxRefusedPerUser, "per_address", s.cfg.MaxRefusedPerAddress)
	})
}

// maxBuckets bounds the memory, about 150 bytes for each bucket. When it is reached, any bucket is dropped, and its owner starts with a
// full one.
const maxBuckets = 10_000

// refusalBuckets holds a token bucket for each user or address that was refused. Buckets are found by the key's hash, because a key may be
// long.
type refusalBuckets[K comparable] struct {
	perMinute int // 0: no limit
	seed      maphash.Seed

	mu      sync.Mutex
	buckets map[uint64]*rate.Limiter
	swept   time.Time // when those that were full again were last dropped
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

// take takes tokens from a bucket, also more than it has: the bucket's level may be negative.
func (b *refusalBuckets[K]) take(key K, tokens int) {
	if b.perMinute == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	hash := maphash.Comparable(b.seed, key)
	if b.buckets[hash] == nil {
		if time.Since(b.swept) >= time.Minute { // not more often: while many are refused, few are full
			maps.DeleteFunc(b.buckets, func(_ uint64, bucket *rate.Limiter) bool { return bucket.Tokens() >= float64(bucket.Burst()) })
			b.swept = time.Now()
		}
		if len(b.buckets) >= maxBuckets {
			for other := range b.buckets {
				delete(b.buckets, other)
				break
			}
		}
		b.buckets[hash] = rate.NewLimiter(rate.Limit(b.perMinute)/60, b.perMinute)
	}
	b.buckets[hash].ReserveN(time.Now(), min(tokens, b.perMinute)) // a Limiter refuses to reserve more than its burst
}
