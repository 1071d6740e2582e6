package pgnotify

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

// If the program and the triggers disagreed about a key's bucket, no change of that key would be announced.
func TestBucketsAreThoseOfPostgreSQL(t *testing.T) {
	t.Parallel()
	texts := []string{"a", "Ä", "日本", strings.Repeat("x", store.MaxKey), "job:1", "*", " ", "'", `\`}
	for n := range 40 {
		texts = append(texts, strings.Repeat("é", n)+strings.Repeat("y", n%13))
	}
	var integers, uuids []string
	for _, key := range []int64{0, 1, -1, 42, math.MaxInt32, math.MinInt32, math.MaxInt32 + 1, math.MaxInt64, math.MinInt64, 1 << 32, 1<<32 - 1, 1 << 22} {
		integers = append(integers, fmt.Sprint(key))
	}
	for range 10_000 {
		integers = append(integers, fmt.Sprint(int64(rand.Uint64())), fmt.Sprint(rand.Int64N(100_000)))
	}
	for range 1000 {
		uuids = append(uuids, fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", rand.Uint32(), rand.Uint32N(1<<16), rand.Uint32N(1<<16), rand.Uint32N(1<<16), rand.Uint64N(1<<48)))
	}
	conn := pgtest.Connect(t, pgtest.New(t))
	for _, tc := range []struct {
		keys store.KeyType
		list []string
		hash string // PostgreSQL's
	}{
		{store.IntegerKeys, integers, `hashint8(k::bigint)`},
		{store.TextKeys, texts, `hashtext(k collate "C")`},
		{store.UUIDKeys, uuids, `uuid_hash(k::uuid)`},
	} {
		for _, mix := range []int32{0, 1, -1, math.MinInt32, 0x1234567} {
			rows, _ := conn.Query(t.Context(), fmt.Sprintf(`select k, %s, (%[1]s # %d) & 4095 from unnest($1::text[]) k`, tc.hash, mix), tc.list)
			seen := 0
			for ; rows.Next(); seen++ {
				var key store.Key
				var wantHash, want int32
				testkit.NoError(t, rows.Scan(&key, &wantHash, &want))
				if got := bucketOf(&store.Feed{Key: tc.keys, Mix: mix}, key); got != want || int32(hash(tc.keys, key)) != wantHash {
					t.Fatalf("%s %q: bucket %d and hash %d, PostgreSQL's are %d and %d", tc.keys, key, got, int32(hash(tc.keys, key)), want, wantHash)
				}
			}
			if rows.Err() != nil || seen != len(tc.list) {
				t.Fatalf("%d rows, %v, want %d", seen, rows.Err(), len(tc.list))
			}
		}
	}
}
