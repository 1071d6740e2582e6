package load

import (
	"sync"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// Every change fits into the socket's buffer, so no write ever blocks: the kernel would keep hours of old states for it.
func TestLoadTricklingClientDoesNotHoldAPileOfOldStates(t *testing.T) {
	t.Parallel()
	const updates, length = 64, 4 << 10
	db, i := harness.ServeNew(t)
	id := db.InsertMany(t, 1)[0]
	v := i.View(t, id, nil)
	v.Reached(t, 0)
	var reading sync.WaitGroup
	t.Cleanup(reading.Wait) // after RawClient's own, which closes the connection
	trickling := i.RawClient(t, id, "")
	reading.Go(func() { readTrickling(trickling) })
	i.WaitMetric(t, harness.StreamsOpen, harness.AtLeast(2))

	app := pgtest.Connect(t, db.Admin)
	for n := range updates { // 256 kB in all
		harness.Exec(t, app, `update audits set total_pages = $1, message = repeat('x', $2)`, n+1, length)
		v.Reached(t, n+1)
	}
	i.WaitMetric(t, harness.StreamsOpen, harness.AtMost(1))
}
