package pgnotify

import (
	"math/bits"

	"auditstream/store"
)

// maxBuckets is the most that keys may be put into. A key's bucket among fewer, always a power of two, is its bucket among these
// without the upper bits.
const maxBuckets = 4096

// beginnings is how many buckets stand for whatever begins, after the others: by its key, so that writers who insert at the same time
// seldom look at the same lock.
const beginnings = 64

// bucketsOf returns the buckets that are a key's, of all that there are.
func bucketsOf[B any](all []B, key store.Key) []B {
	if key == Beginning {
		return all[maxBuckets:]
	}
	return all[bucketOf(key):][:1]
}

// bucketOf is the bucket of a key among maxBuckets: what the triggers compute, of an integer, as hashint8(key) & (buckets - 1).
func bucketOf(key store.Key) int32 {
	return int32(hashint8(key.Int()) & (maxBuckets - 1))
}

// hashint8 is PostgreSQL's function of this name (hashfunc.c, and hash_bytes_uint32 in hashfn.c).
func hashint8(key int64) uint32 {
	low, high := uint32(key), uint32(key>>32)
	if key < 0 {
		high = ^high
	}
	a := uint32(0x9e3779b9 + 4 + 3923095)
	b, c := a, a
	a += low ^ high
	mix := func(x *uint32, y uint32, by int) { *x = (*x ^ y) - bits.RotateLeft32(y, by) }
	mix(&c, b, 14)
	mix(&a, c, 11)
	mix(&b, a, 25)
	mix(&c, b, 16)
	mix(&a, c, 4)
	mix(&b, a, 14)
	mix(&c, b, 24)
	return c
}
