package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// A row that raises any error ends its own streams, and is named on /readyz and in the metrics; all others go on.
func TestS7UnreadableRowIsItsOwnProblem(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	ids := db.InsertMany(t, 2)
	bad, good := ids[0], ids[1]
	db.SQL(t, `create function damaged(status text, id bigint) returns text stable language plpgsql as $$ begin
			if id = `+bad+` then raise 'missing chunk number 0' using errcode = 'XX001'; end if;
			return status;
		end $$;
		create or replace view auditstream.progress as select audit_id, user_id, user_email, damaged(status, audit_id) as status, progress, message, geo_score,
			total_pages, error from (`+strings.TrimSuffix(db.SQL(t, `select pg_get_viewdef('auditstream.progress')`), ";")+`) p`)
	i := harness.Serve(t, db.Serve)
	i.WaitMetric(t, harness.ListenerUp, harness.AtLeast(1))
	viewer := i.View(t, good, nil)
	viewer.Reached(t, 0)
	answer := i.AskAs(t, harness.AliceToken(t), harness.StreamPath(bad))
	harness.WantIn(t, answer.Body, `{"error":"Internal server error"}`)
	start := time.Now()
	for n := range 20 {
		i.AskAs(t, harness.AliceToken(t), harness.StatusPath(bad))
		db.SetAll(t, n+1)
		viewer.Reached(t, n+1)
	}
	t.Log("20 updates beside it in", time.Since(start))
	if _, body := i.Get(t, "/readyz"); body != `{"status":"ready","database":"up","listener":"up","unreadable_rows":1,"drift":["object"]}` {
		t.Errorf("/readyz: %s", body)
	}
	i.WantMetric(t, "auditstream_rows_unreadable", 1)
}

// A message of 60 MB, whose viewer keeps coming back, is shown in part, and costs the others neither time nor memory.
func TestS8HugeRowCostsOthersNothing(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	ids := db.InsertMany(t, 2)
	huge, other := ids[0], ids[1]
	db.SQL(t, `update audits set message = repeat('x', 60000000) where id = `+huge)
	i := harness.ServeReady(t, db.Serve, "SSE_MAX_ROW_BYTES=100000")
	viewer := i.View(t, other, nil)
	viewer.Reached(t, 0)
	var row struct{ Message string }
	for n := range 10 {
		answer := i.AskAs(t, harness.AliceToken(t), harness.StatusPath(huge))
		if err := json.Unmarshal([]byte(answer.Body), &row); err != nil || len(row.Message) != 100_000 || !strings.HasSuffix(row.Message, "x…") {
			t.Fatalf("%v, a message of %d bytes, want 100000 and an ellipsis at the end", err, len(row.Message))
		}
		db.SQL(t, fmt.Sprintf(`update audits set total_pages = %d where id = %s`, n+1, other))
		viewer.Reached(t, n+1)
	}
	if got := i.Metric(t, "auditstream_rows_cut_total"); got < 10 {
		t.Errorf("auditstream_rows_cut_total is %v, want 10 or more", got)
	}
	if got := i.Metric(t, "process_resident_memory_bytes"); got > 200e6 {
		t.Errorf("%.0f MB of memory are in use", got/1e6)
	}
}

// In a database of another encoding letters are shown, and owners are told apart, as in any.
func TestS10DatabaseThatIsNotUTF8(t *testing.T) {
	t.Parallel()
	utf8 := harness.NewDatabase(t) // makes the role
	admin, err := url.Parse(utf8.Admin)
	harness.NoError(t, err)
	name := strings.TrimPrefix(admin.Path, "/") + "_l1"
	conn := pgtest.Connect(t, utf8.Admin)
	harness.Exec(t, conn, `create database `+name+` encoding 'LATIN1' locale 'C' template template0`)
	t.Cleanup(func() {
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), `drop database `+name+` with (force)`); err != nil {
			t.Error(err)
		}
	})
	admin.Path = "/" + name
	db := harness.Adopt(t, admin.String())
	app := pgtest.Connect(t, admin.String()+"&client_encoding=UTF8")
	for _, owner := range []string{"andré", "Ã©"} {
		harness.Exec(t, app, `insert into audits (url, user_id, status, message) values ('https://example.com', $1, 'running', 'prêt: ' || $1)`, owner)
	}
	i := harness.ServeReady(t, db.Serve)
	andre := harness.Token(t, jwt.MapClaims{"sub": "andré"})
	s := i.Watch(t, "1", andre)
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":0,"message":"prêt: andré"}`)
	harness.Exec(t, app, `update audits set status = 'completed', message = 'terminé' where id = 1`)
	s.WantEvent(t, `{"audit_id":1,"status":"completed","progress":0,"message":"terminé"}`)
	// Neither what UTF-8 looks like in LATIN1 nor what that encoding lacks is somebody.
	for _, sub := range []string{"é", "andr\u0117", "日本"} {
		i.AskAs(t, harness.Token(t, jwt.MapClaims{"sub": sub}), harness.StatusPath("2")).WantRefusal(t, 403, harness.CrossUser, "")
	}
}

// Polling reads, and writes nothing, whoever asks and whatever the answer is.
func TestS5StatusWritesNothing(t *testing.T) {
	t.Parallel()
	db, i := harness.ServeFirst(t)
	bob := harness.Token(t, jwt.MapClaims{"sub": "bob"})
	for range 50 {
		i.AskAs(t, bob, harness.StatusPath("1")).WantRefusal(t, 403, harness.CrossUser, "")
		i.AskAs(t, bob, harness.StatusPath("99")).WantRefusal(t, 404, auditNotFound, "")
		i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1")).WantStatus(t, 200)
	}
	// A lock is kept for a while, so one of theirs would be seen; the stream's is, for comparison.
	db.WantSQL(t, "select count(*) from "+harness.HeldLocks, "0")
	i.Watch(t, "1", harness.AliceToken(t)).Next(t)
	db.WatchedBy(t, "1", 1)
}
