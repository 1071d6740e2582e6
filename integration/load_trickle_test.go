package integration

import (
	"sync"
	"testing"

	"auditstream/internal/pgtest"
)

// Every change fits into the socket's buffer, so no write ever blocks: the kernel would keep hours of old states for it.
func TestLoadTricklingClientDoesNotHoldAPileOfOldStates(t *testing.T) {
	t.Parallel()
	const updates, length = 64, 4 << 10
	db := newDatabase(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	id := db.insertMany(t, 1)[0]
	v := i.view(t, id, nil)
	v.reached(t, 0)
	var reading sync.WaitGroup
	t.Cleanup(reading.Wait) // after rawClient's own, which closes the connection
	trickling := i.rawClient(t, id, "")
	reading.Go(func() { readTrickling(trickling) })
	i.waitMetric(t, streamsOpen, atLeast(2))

	app := pgtest.Connect(t, db.Admin)
	for n := range updates { // 256 kB in all
		exec1(t, app, `update audits set total_pages = $1, message = repeat('x', $2)`, n+1, length)
		v.reached(t, n+1)
	}
	i.waitMetric(t, streamsOpen, atMost(1))
}
