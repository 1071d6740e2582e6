package pgnotify

import (
	"encoding/binary"
	"math/bits"

	"auditstream/internal/store"
)

// maxBuckets is the largest number of buckets that an install may choose, which is always a power of two. A key's bucket among fewer
// buckets is its bucket among these without the upper bits.
const maxBuckets = 4096

// newRowBuckets is the number of buckets for NewRows, after the others. A writer asks for the one that its new row's key selects, so that
// concurrent inserts seldom ask for the same lock.
const newRowBuckets = 64

// bucketsOf returns the elements of all, which has one for each bucket, that belong to a key: one, or for NewRows newRowBuckets.
func bucketsOf[B any](all []B, feed *store.Feed, key store.Key) []B {
	first, n := bucketsOfKey(feed, key)
	return all[first:][:n]
}

// bucketsOfKey returns the number of a key's first bucket, and how many buckets the key has.
func bucketsOfKey(feed *store.Feed, key store.Key) (first, n int) {
	if key == NewRows {
		return maxBuckets, newRowBuckets
	}
	return int(bucketOf(feed, key)), 1
}

// bucketOf returns the bucket of a key among maxBuckets. The triggers compute the same: hashint8(key) & (buckets - 1) for an integer key of
// the feed audits. All feeds share the buckets, so each mixes in a number of its own: otherwise equal keys of two feeds would share a bucket.
func bucketOf(feed *store.Feed, key store.Key) int32 {
	return int32((hash(feed.Key, key) ^ uint32(feed.Mix)) & (maxBuckets - 1))
}

// hash returns what PostgreSQL's hashint8, uuid_hash, or hashtext with a bytewise collation returns.
func hash(keys store.KeyType, key store.Key) uint32 {
	switch keys {
	case store.UUIDKeys:
		id, _ := store.UUID(key)
		return hashBytes(id[:])
	case store.TextKeys:
		return hashBytes([]byte(key))
	}
	return hashint8(key.Int())
}

// hashint8 is PostgreSQL's function of that name (hashfunc.c, with hash_bytes_uint32 in hashfn.c).
func hashint8(key int64) uint32 {
	low, high := uint32(key), uint32(key>>32)
	if key < 0 {
		high = ^high
	}
	a := uint32(hashSeed + 4)
	return final(a+(low^high), a, a)
}

const hashSeed = 0x9e3779b9 + 3923095

// hashBytes is PostgreSQL's hash_bytes (hashfn.c) for a little-endian machine: Bob Jenkins' lookup3.
func hashBytes(k []byte) uint32 {
	a := uint32(hashSeed) + uint32(len(k))
	b, c := a, a
	for ; len(k) >= 12; k = k[12:] {
		a += binary.LittleEndian.Uint32(k)
		b += binary.LittleEndian.Uint32(k[4:])
		c += binary.LittleEndian.Uint32(k[8:])
		step(&a, c, 4)
		c += b
		step(&b, a, 6)
		a += c
		step(&c, b, 8)
		b += a
		step(&a, c, 16)
		c += b
		step(&b, a, 19)
		a += c
		step(&c, b, 4)
		b += a
	}
	var rest [12]byte
	copy(rest[:], k)
	a += binary.LittleEndian.Uint32(rest[:])
	b += binary.LittleEndian.Uint32(rest[4:])
	c += binary.LittleEndian.Uint32(rest[8:]) << 8 // the lowest byte of c is for the length
	return final(a, b, c)
}

func step(x *uint32, y uint32, by int) { *x = (*x - y) ^ bits.RotateLeft32(y, by) }

func final(a, b, c uint32) uint32 {
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
