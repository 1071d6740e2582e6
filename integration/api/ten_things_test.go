package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
)

// Ten things decide whether a design like this one works. Each has tests whose names begin with TestPitfall and its
// number, in this package or, where only fake time tells, in pgnotify: go test -list TestPitfall ./...
//
//  1. NOTIFY takes a lock of the whole cluster at commit: only for rows that are watched, and it can be done without.
//  2. A payload of 8,000 bytes aborts the writer's transaction.
//  3. LISTEN, then take the lock, then read: any other order loses updates.
//  4. A notification that comes during a read needs another read.
//  5. A listening connection that has been cut, or has fallen silent, is noticed and replaced, and everything read again.
//  6. Behind a transaction pooler LISTEN succeeds and nothing ever comes.
//  7. EventSource gives up at any status but 200; fetch clients go on for ever, except after a clean end.
//  8. On HTTP/2 a write deadline that passes resets an idle stream.
//  9. http.Server.Shutdown waits for streams for ever.
//  10. What triggers cost writers shows with fsync alone.

// PostgreSQL refuses to prepare a transaction that has called NOTIFY, so preparing one tells whether it will take the lock.
func TestPitfall01NotifyLockIsForWatchedRowsOnly(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, func(c *localpg.Config) { c.Settings = map[string]string{"max_prepared_transactions": "2"} })
	db := harness.Adopt(t, server.DSN("postgres"))
	i := harness.ServeReady(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	ids := db.InsertMany(t, 2)
	v := i.View(t, ids[0], nil)
	db.WatchedBy(t, ids[0], 1)
	app := pgtest.Connect(t, db.Admin)
	takesLock := func(statement string) bool {
		t.Helper()
		_, err := app.PgConn().Exec(t.Context(), "begin; "+statement+"; prepare transaction 'p'").ReadAll()
		if err == nil {
			harness.Exec(t, app, "rollback prepared 'p'")
			return false
		}
		harness.Exec(t, app, "rollback")
		if !strings.Contains(err.Error(), "NOTIFY") {
			t.Fatalf("%s: %v", statement, err)
		}
		return true
	}
	if !takesLock("update audits set total_pages = 1") {
		t.Error("a change that is shown does not notify")
	}
	for _, statement := range []string{
		"update audits set progress = 99 where id < 0",
		"select from audits for update",
		"update audits set total_pages = 7, status = 'failed' where id = " + ids[1], // nobody watches it
	} {
		if takesLock(statement) {
			t.Errorf("%s: notifies, though nothing that anybody watches has changed", statement)
		}
	}

	harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--no-triggers", "--role", harness.ServeRole)
	if takesLock("update audits set total_pages = 1, status = 'completed'") {
		t.Error("a change notifies without triggers")
	}
	for n := range 3 {
		db.SetAll(t, n+1)
		v.Reached(t, n+1) // by the safety net
	}
	db.SQL(t, "update audits set status = 'completed'")
	if last := v.Ended(t); last.Status != "completed" {
		t.Errorf("the stream ended at %s, want completed", harness.Describe(last))
	}
}

// A native EventSource reconnects after a 200 that ends, waiting as long as retry says, and stops for good at 204 or any
// error status. A client made of fetch retries what fails, and takes a clean end without a word for the end.
func TestPitfall07ClientsComeBackWhenTheyShallAndStopWhenTheyMay(t *testing.T) {
	harness.OverHTTP1And2(t, testPitfall07ClientsComeBackWhenTheyShallAndStopWhenTheyMay)
}

func testPitfall07ClientsComeBackWhenTheyShallAndStopWhenTheyMay(t *testing.T) {
	db, i := harness.ServeNew(t, "SSE_MAX_STREAMS=1", "SSE_RETRY_MS=100")
	id := db.InsertMany(t, 1)[0]
	only := i.Shown(t, id, harness.AliceToken(t))

	// Refused for now: a native one is told to come back, a fetch one why its stream has ended.
	const refusals = `auditstream_requests_refused_total{reason="too many streams"}`
	native := harness.FollowAlways(t, harness.Request(t, t.Context(), i.URL+harness.StreamPath(id), harness.AliceToken(t)))
	i.WaitMetric(t, refusals, harness.AtLeast(3))
	fetched := i.Open(t, harness.StreamPath(id), harness.AliceToken(t))
	body := fetched.Whole(t)
	if fetched.Response.StatusCode != 200 || !strings.HasPrefix(body, "retry: ") || !strings.HasSuffix(body, "event: message\ndata: {\"error\":\"Too many streams\"}\n\n") {
		t.Errorf("refused with %d %q, want 200, retry and an error event", fetched.Response.StatusCode, body)
	}
	only.Cancel()
	native.Reached(t, 0)

	// The end: both have the last state. Who comes back all the same, as a native one does, is told that there is nothing more.
	db.SQL(t, "update audits set status = 'completed', total_pages = 1")
	native.Reached(t, 1)
	select {
	case <-native.Done:
	case <-time.After(harness.Patience):
		t.Fatal("the native client has not been told to stop")
	}
	if native.Stopped == nil || native.Stopped.StatusCode != 204 {
		t.Errorf("the native client was stopped by %v, want 204", native.Stopped)
	}
	harness.Eventually(t, func() error { // the room is free again
		body = i.Open(t, harness.StreamPath(id), harness.AliceToken(t)).Whole(t)
		if !strings.Contains(body, `"status":"completed"`) {
			return fmt.Errorf("a client without Last-Event-ID: %q, want the last state", body)
		}
		return nil
	})
	// What will not pass is a status that ends both.
	for _, tt := range []struct {
		path, token string
		want        int
	}{{harness.StreamPath("4711"), harness.AliceToken(t), 404}, {harness.StreamPath("0"), harness.AliceToken(t), 400}, {harness.StreamPath(id), "", 401}} {
		harness.Equal(t, i.Open(t, tt.path, tt.token).Response.StatusCode, tt.want, tt.path)
	}
}
