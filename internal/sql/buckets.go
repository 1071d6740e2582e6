package sql

import "math/bits"

// lockClass is the first number of the advisory locks that say who is watched ("auti"); the second is the bucket.
const lockClass = 0x61757469

// bucketsFor chooses how many buckets keys are put into, a power of two from 64 to 4096, for a server with so many entries in its lock
// table: an instance of serve takes one for each bucket in which somebody watches a row, a sixth of the table at most.
func bucketsFor(locks int) int {
	most := min(max(locks/6, 64), 4096)
	return 1 << (bits.Len(uint(most)) - 1)
}
