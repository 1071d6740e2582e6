package sql

import (
	"fmt"
	"math/bits"
	"strconv"
)

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

// ring is the condition of a trigger that notifies of the row called row, new or old, when the lock numbered bucket is held. It is
// never true, so that nothing is queued, and can raise no error. A lock that can be had is held by nobody who watches. A row without
// a key is nobody's.
func ring(bucket, row, key string) string {
	return fmt.Sprintf("case when %[3]s.%[4]s is null then false when pg_catalog.pg_try_advisory_lock(%[1]d, %[2]s) then not pg_catalog.pg_advisory_unlock(%[1]d, %[2]s)"+
		" else pg_catalog.pg_notify('%[5]s', %[3]s.%[4]s::pg_catalog.text) is null end", lockClass, bucket, row, key, Channel)
}

// notify is the condition of a trigger that always notifies.
func notify(row, key string) string {
	return fmt.Sprintf("case when %[1]s.%[2]s is null then false else pg_catalog.pg_notify('%[3]s', %[1]s.%[2]s::pg_catalog.text) is null end", row, key, Channel)
}

// rings are the conditions of install.sql's triggers: of a row that is watched, and of whatever begins.
func rings(m *mapping, buckets int, always bool) map[string]string {
	key := ident(m.key.Name)
	if always {
		return map[string]string{"ring_new": notify("new", key), "ring_old": notify("old", key), "ring_begun": notify("new", key)}
	}
	bucket := func(row string) string {
		return fmt.Sprintf("pg_catalog.hashint8(%s.%s::pg_catalog.int8) operator(pg_catalog.&) %d", row, key, buckets-1)
	}
	return map[string]string{
		"ring_new": ring(bucket("new"), "new", key), "ring_old": ring(bucket("old"), "old", key),
		"ring_begun": ring(strconv.Itoa(buckets), "new", key),
	}
}
