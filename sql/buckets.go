package sql

import "math/bits"

// lockClass is the first number of the advisory locks that say who is watched ("auti"); the second is the bucket.
const lockClass = 0x61757469

const (
	minBuckets = 64
	maxBuckets = 4096
	// lockShare is which part of PostgreSQL's lock table the buckets may fill.
	lockShare = 6
)

// bucketsFor chooses how many buckets keys are put into, a power of two, for a server with so many entries in its lock table: an
// instance of serve takes one for each bucket in which somebody watches a row.
func bucketsFor(locks int) int {
	most := min(max(locks/lockShare, minBuckets), maxBuckets)
	return 1 << (bits.Len(uint(most)) - 1)
}
