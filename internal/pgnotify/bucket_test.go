package pgnotify

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
	"auditstream/internal/store"
)

// If the program and the triggers disagreed about a key's bucket, no change of that key would be announced.
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
		if got := bucketOf(store.Audits, store.IntKey(key)) & 1023; got != bucket || int32(hashint8(key)) != hash {
			t.Fatalf("%d: bucket %d and hash %d, PostgreSQL's are %d and %d", key, got, int32(hashint8(key)), bucket, hash)
		}
	}
	if rows.Err() != nil || seen != len(keys) {
		t.Fatalf("%d rows, %v, want %d", seen, rows.Err(), len(keys))
	}
}

// The same for keys of other types, and for feeds other than the first.
func TestBucketsOfOtherKeysAreThoseOfPostgreSQL(t *testing.T) {
	t.Parallel()
	texts := []string{"a", "Ä", "日本", strings.Repeat("x", store.MaxKey), "job:1", "*", " ", "'", `\`}
	for n := range 40 {
		texts = append(texts, strings.Repeat("é", n)+strings.Repeat("y", n%13))
	}
	var uuids []string
	for range 1000 {
		uuids = append(uuids, fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", rand.Uint32(), rand.Uint32N(1<<16), rand.Uint32N(1<<16), rand.Uint32N(1<<16), rand.Uint64N(1<<48)))
	}
	conn := pgtest.Connect(t, pgtest.New(t))
	for _, mix := range []int32{0, 1, -1, math.MinInt32, 0x1234567} {
		for keys, list := range map[store.KeyType][]string{store.TextKeys: texts, store.UUIDKeys: uuids} {
			hash := map[store.KeyType]string{store.TextKeys: `hashtext(k collate "C")`, store.UUIDKeys: `uuid_hash(k::uuid)`}[keys]
			rows, _ := conn.Query(t.Context(), fmt.Sprintf(`select k, (%s # %d) & 4095 from unnest($1::text[]) k`, hash, mix), list)
			seen := 0
			for ; rows.Next(); seen++ {
				var key string
				var bucket int32
				if err := rows.Scan(&key, &bucket); err != nil {
					t.Fatal(err)
				}
				if got := bucketOf(&store.Feed{Key: keys, Mix: mix}, store.Key(key)); got != bucket {
					t.Fatalf("%s %q: bucket %d, PostgreSQL's is %d", keys, key, got, bucket)
				}
			}
			if rows.Err() != nil || seen != len(list) {
				t.Fatalf("%d rows, %v, want %d", seen, rows.Err(), len(list))
			}
		}
	}
}
