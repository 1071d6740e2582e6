package sql

import "math/bits"

// lockClass ("auti") is the first number of the advisory locks that say what is watched; the second is the bucket.
const lockClass = 0x61757469

// bucketsFor returns the number of buckets for a server whose lock table has so many entries: a power of two from 64 to 4096. An instance of
// serve holds one lock for each bucket with watched keys, and these may take a sixth of the lock table at most.
func bucketsFor(locks int) int {
	most := min(max(locks/6, 64), 4096)
	return 1 << (bits.Len(uint(most)) - 1)
}
