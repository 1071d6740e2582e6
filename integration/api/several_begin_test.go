package api

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// All of these have the safety net far away: what is shown was told by the triggers.
const noSafetyNet = "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"

func TestAPISeveralThatBeginLaterArePushed(t *testing.T) {
	harness.OverHTTP1And2(t, testAPISeveralThatBeginLaterArePushed)
}

func testAPISeveralThatBeginLaterArePushed(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := harness.NewDatabase(t)
		i := harness.Serve(t, db.Serve, env, noSafetyNet)
		i.WaitReady(t, "up")
		s := i.Open(t, severalPath, harness.AliceToken(t))
		other := i.Watch(t, db.Insert(t, "status", "'running'"), harness.AliceToken(t))
		other.Next(t)
		s.Next(t)
		for n := range 5 {
			id := db.Insert(t, "status, progress", fmt.Sprintf("'running', %d", n))
			began := time.Now()
			s.WantEvent(t, fmt.Sprintf(`{"audit_id":%s,"status":"running","progress":%d}`, id, n))
			t.Logf("shown %v after psql had ended", time.Since(began).Round(100*time.Microsecond))
			db.SQL(t, "update audits set progress = 50 where id = "+id)
			s.WantEvent(t, fmt.Sprintf(`{"audit_id":%s,"status":"running","progress":50}`, id))
			db.SQL(t, "update audits set status = 'completed' where id = "+id)
			s.WantEvent(t, fmt.Sprintf(`{"audit_id":%s,"status":"completed","progress":50}`, id))
		}
		db.SQL(t, "insert into audits (url, user_id) values ('https://example.com', 'bob')")
		ids := db.InsertMany(t, 3) // by one statement
		seen := map[int64]bool{}
		for range ids {
			seen[s.NextProgress(t).AuditID] = true
		}
		if len(seen) != 3 {
			t.Errorf("shown: %v, want %v", seen, ids)
		}
		if got := i.Metric(t, "auditstream_notifications_missed_total"); got != 0 {
			t.Errorf("%v notifications missed, want none", got)
		}
		s.Cancel()
		db.WatchedBy(t, "new", 0) // inserts ring no more
	})
}

// An insert whose trigger looked before the stream came rings nothing when it commits.
func TestAPISeveralThatBeganInAnOpenTransaction(t *testing.T) {
	harness.OverHTTP1And2(t, testAPISeveralThatBeganInAnOpenTransaction)
}

func testAPISeveralThatBeganInAnOpenTransaction(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve, noSafetyNet)
	i.WaitReady(t, "up")
	for _, begin := range []string{"begin", "begin isolation level repeatable read", "begin; savepoint a"} {
		w := pgtest.Connect(t, db.Admin)
		harness.Script(t, w, begin+"; insert into audits (url, user_id, progress) values ('https://example.com', 'alice', 7)")
		s := i.Open(t, severalPath, harness.AliceToken(t))
		s.WantSoFar(t, ": heartbeat every 30 s\n\nretry: 5000\n\n")
		harness.Script(t, w, "commit")
		if p := s.NextProgress(t); p.Progress != 7 {
			t.Errorf("%s: %+v, want the audit that began in it", begin, p)
		}
		db.SQL(t, "update audits set status = 'completed'")
		if p := s.NextProgress(t); p.Status != "completed" {
			t.Errorf("%s: %+v, want its end", begin, p)
		}
		s.Cancel()
	}
}

// Another session that listens.
func TestAPISeveralThatBeginAfterAReconnect(t *testing.T) {
	harness.OverHTTP1And2(t, testAPISeveralThatBeginAfterAReconnect)
}

func testAPISeveralThatBeginAfterAReconnect(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve, noSafetyNet)
	i.WaitReady(t, "up")
	s := i.Open(t, severalPath, harness.AliceToken(t))
	s.WantSoFar(t, ": heartbeat every 30 s\n\nretry: 5000\n\n")
	db.SQL(t, `select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
		where application_name = 'auditstream listener' and datname = current_database()`)
	id := db.Insert(t, "", "") // while nobody listens
	s.WantEvent(t, `{"audit_id":`+id+`,"status":"pending","progress":0}`)
	i.WaitReady(t, "up")
	id = db.Insert(t, "", "")
	s.WantEvent(t, `{"audit_id":`+id+`,"status":"pending","progress":0}`)
}

func TestAPISeveralHundred(t *testing.T) { harness.OverHTTP1And2(t, testAPISeveralHundred) }

func testAPISeveralHundred(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := harness.NewDatabase(t)
		i := harness.Serve(t, db.Serve, env, noSafetyNet, "SSE_MAX_STREAMS=1")
		i.WaitReady(t, "up")
		ids := db.InsertMany(t, 101)
		got := i.Ask(t, "GET", severalPath+"?ids="+strings.Join(ids, ","), "Authorization", "Bearer "+harness.AliceToken(t))
		if got.Status != 400 {
			t.Errorf("101 ids: status %d, want 400", got.Status)
		}
		s := i.Open(t, severalPath+"?ids="+strings.Join(ids[:100], ","), harness.AliceToken(t))
		for _, id := range ids[:100] {
			s.WantEvent(t, `{"audit_id":`+id+`,"status":"running","progress":0,"total_pages":0}`)
		}
		// One stream, whatever it is of.
		for _, path := range []string{severalPath, severalPath + "?ids=1", "/api/v1/sse/audits/1/progress"} {
			withRandomRetry(t, i.Open(t, path, harness.AliceToken(t)).Whole(t), tooMany)
		}
		db.SQL(t, "update audits set status = 'completed'")
		ends := map[int64]bool{}
		for range 100 {
			if p := s.NextProgress(t); p.Status == "completed" {
				ends[p.AuditID] = true
			}
		}
		if len(ends) != 100 || ends[101] {
			t.Errorf("%d ends, want 100", len(ends))
		}
		s.SeveralIDs(t)
	})
}

func TestAPISeveralOverHTTP2(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	certFile, keyFile, pool := harness.SelfSigned(t)
	i := harness.Serve(t, db.Serve, noSafetyNet, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile)
	i.WaitLog(t, "listening for notifications")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	mine, both := i.OpenOn(t, transport, severalPath, harness.AliceToken(t)), ""
	if mine.Response.ProtoMajor != 2 {
		t.Fatalf("answered in %s", mine.Response.Proto)
	}
	for range 2 {
		id := db.Insert(t, "", "")
		mine.WantEvent(t, `{"audit_id":`+id+`,"status":"pending","progress":0}`)
		both += "," + id
	}
	s := i.OpenOn(t, transport, severalPath+"?ids="+both[1:], harness.AliceToken(t)) // on the same connection
	s.Next(t)
	s.Next(t)
	db.SQL(t, "update audits set status = 'failed'")
	for _, stream := range []*harness.Stream{mine, mine, s, s} {
		if p := stream.NextProgress(t); p.Status != "failed" {
			t.Errorf("%+v, want an end", p)
		}
	}
	s.SeveralIDs(t)
}
