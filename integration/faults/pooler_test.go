package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

func TestPitfall06TransactionPoolerWithListenURL(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	pooled := harness.StartPgBouncer(t, db.Serve)
	i := harness.Serve(t, pooled, "DATABASE_LISTEN_URL="+db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	i.WaitReady(t, "up")
	viewers := i.Crowd(t, 30, db.InsertMany(t, 5), nil)
	for n := range 10 {
		db.SetAll(t, n+1)
		for _, v := range viewers {
			v.Reached(t, n+1)
		}
	}
	if got := i.Metric(t, missed); got != 0 {
		t.Errorf("%v missed notifications, want 0", got)
	}
}

// LISTEN succeeds behind a transaction pooler, and nothing ever comes.
func TestPitfall06TransactionPoolerWithoutListenURLPolls(t *testing.T) {
	t.Parallel()
	const complaint = "LISTEN does not work on this connection: polling only. Set DATABASE_LISTEN_URL to a direct connection to the primary (a transaction pooler or a standby cannot LISTEN)"
	db := harness.NewDatabase(t)
	i := harness.Serve(t, harness.StartPgBouncer(t, db.Serve), "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	ids := db.InsertMany(t, 2)
	harness.Eventually(t, func() error { // on a busy machine the first connections by way of the pooler take seconds
		resp, err := http.DefaultClient.Do(harness.Request(t, t.Context(), i.URL+"/api/v1/audits/"+ids[0]+"/status", harness.AliceToken(t)))
		if err != nil {
			return err
		}
		if body := harness.ReadAll(t, resp.Body); resp.StatusCode != 200 {
			return fmt.Errorf("status: %d %s", resp.StatusCode, body)
		}
		return nil
	})
	viewers := i.Crowd(t, 10, ids, nil)
	i.WaitLog(t, complaint)
	i.WaitReady(t, "polling")
	for n := range 3 {
		db.SetAll(t, n+1)
		for _, v := range viewers {
			v.Reached(t, n+1)
		}
	}
	i.WaitReady(t, "polling")
	if got := strings.Count(i.Log.String(), complaint); got != 1 {
		t.Errorf("the log says %d times that LISTEN does not work, want once", got)
	}
}
