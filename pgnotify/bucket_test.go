package pgnotify

import (
	"math"
	"math/rand/v2"
	"testing"

	"auditstream/integration/pgtest"
	"auditstream/store"
)

// Where program and triggers disagreed about a key's bucket, every change of it would go unannounced.
func TestBucketsAreThoseOfPostgreSQL(t *testing.T) {
	t.Parallel()
	keys := []int64{0, 1, -1, 42, math.MaxInt32, math.MinInt32, math.MaxInt32 + 1, math.MaxInt64, math.MinInt64, 1 << 32, 1<<32 - 1, 1 << 22}
	for range 10_000 {
		keys = append(keys, int64(rand.Uint64()), rand.Int64N(100_000))
	}
	rows, err := pgtest.Connect(t, pgtest.New(t)).Query(t.Context(), `select k, hashint8(k) & 1023, hashint8(k) from unnest($1::bigint[]) k`, keys)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := 0
	for ; rows.Next(); seen++ {
		var key int64
		var bucket, hash int32
		if err := rows.Scan(&key, &bucket, &hash); err != nil {
			t.Fatal(err)
		}
		if got := bucketOf(store.IntKey(key)) & 1023; got != bucket || int32(hashint8(key)) != hash {
			t.Fatalf("%d: bucket %d and hash %d, PostgreSQL's are %d and %d", key, got, int32(hashint8(key)), bucket, hash)
		}
	}
	if rows.Err() != nil || seen != len(keys) {
		t.Fatalf("%d rows, %v, want %d", seen, rows.Err(), len(keys))
	}
}
