package pgnotify

import "math/bits"

// bucketOf is the bucket of a key among so many, a power of two: what the triggers compute as hashint8(key) & (buckets - 1).
func bucketOf(key int64, buckets int32) int32 { return int32(hashint8(key)) & (buckets - 1) }

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
