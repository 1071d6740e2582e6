package faults

import (
	"strings"
	"testing"

	"auditstream/integration/harness"
)

func TestPitfall06TransactionPoolerWithListenURL(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	pooled := harness.StartPgBouncer(t, db.Serve)
	i := harness.ServeReady(t, pooled, "DATABASE_LISTEN_URL="+db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	viewers := i.Crowd(t, 30, db.InsertMany(t, 5), nil)
	for n := range 10 {
		db.SetAll(t, n+1)
		harness.AllReached(t, viewers, n+1)
	}
	i.WantMetric(t, missed, 0)
}

// LISTEN succeeds behind a transaction pooler, and nothing ever comes.
func TestPitfall06TransactionPoolerWithoutListenURLPolls(t *testing.T) {
	t.Parallel()
	const complaint = "LISTEN does not work on this connection: polling only. Set DATABASE_LISTEN_URL to a direct connection to the primary (a transaction pooler or a standby cannot LISTEN)"
	db := harness.NewDatabase(t)
	i := harness.Serve(t, harness.StartPgBouncer(t, db.Serve), "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	ids := db.InsertMany(t, 2)
	i.WaitStatus(t, harness.AliceToken(t), harness.StatusPath(ids[0]), 200) // on a busy machine the first connections by way of the pooler take seconds
	viewers := i.Crowd(t, 10, ids, nil)
	i.WaitLog(t, complaint)
	i.WaitReady(t, "polling")
	i.WantMetric(t, harness.ListenerUp, 0)
	for n := range 3 {
		db.SetAll(t, n+1)
		harness.AllReached(t, viewers, n+1)
	}
	i.WaitReady(t, "polling")
	harness.Equal(t, strings.Count(i.Log.String(), complaint), 1, "times that the log says that LISTEN does not work")
}
