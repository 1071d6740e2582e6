package integration

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"auditstream/internal/pgtest"
)

// All of these have the safety net far away: what is shown was told by the triggers.
const noSafetyNet = "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600"

func TestAPISeveralThatBeginLaterArePushed(t *testing.T) {
	overBoth(t, testAPISeveralThatBeginLaterArePushed)
}

func testAPISeveralThatBeginLaterArePushed(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := newDatabase(t)
		i := serve(t, db.Serve, env, noSafetyNet)
		i.waitReady(t, "up")
		s := i.open(t, severalPath, alice(t))
		other := i.watch(t, db.insert(t, "status", "'running'"), alice(t))
		other.next(t)
		s.next(t)
		for n := range 5 {
			id := db.insert(t, "status, progress", fmt.Sprintf("'running', %d", n))
			began := time.Now()
			s.wantEvent(t, fmt.Sprintf(`{"audit_id":%s,"status":"running","progress":%d}`, id, n))
			t.Logf("shown %v after psql had ended", time.Since(began).Round(100*time.Microsecond))
			db.sql(t, "update audits set progress = 50 where id = "+id)
			s.wantEvent(t, fmt.Sprintf(`{"audit_id":%s,"status":"running","progress":50}`, id))
			db.sql(t, "update audits set status = 'completed' where id = "+id)
			s.wantEvent(t, fmt.Sprintf(`{"audit_id":%s,"status":"completed","progress":50}`, id))
		}
		db.sql(t, "insert into audits (url, user_id) values ('https://example.com', 'bob')")
		ids := db.insertMany(t, 3) // by one statement
		seen := map[int64]bool{}
		for range ids {
			seen[s.nextProgress(t).AuditID] = true
		}
		if len(seen) != 3 {
			t.Errorf("shown: %v, want %v", seen, ids)
		}
		if got := i.metric(t, "auditstream_notifications_missed_total"); got != 0 {
			t.Errorf("%v notifications missed, want none", got)
		}
		s.cancel()
		db.watchedBy(t, "new", 0) // inserts ring no more
	})
}

// An insert whose trigger looked before the stream came rings nothing when it commits.
func TestAPISeveralThatBeganInAnOpenTransaction(t *testing.T) {
	overBoth(t, testAPISeveralThatBeganInAnOpenTransaction)
}

func testAPISeveralThatBeganInAnOpenTransaction(t *testing.T) {
	db := newDatabase(t)
	i := serve(t, db.Serve, noSafetyNet)
	i.waitReady(t, "up")
	for _, begin := range []string{"begin", "begin isolation level repeatable read", "begin; savepoint a"} {
		w := pgtest.Connect(t, db.Admin)
		simple(t, w, begin+"; insert into audits (url, user_id, progress) values ('https://example.com', 'alice', 7)")
		s := i.open(t, severalPath, alice(t))
		s.wantSoFar(t, ": heartbeat every 30 s\n\nretry: 5000\n\n")
		simple(t, w, "commit")
		if p := s.nextProgress(t); p.Progress != 7 {
			t.Errorf("%s: %+v, want the audit that began in it", begin, p)
		}
		db.sql(t, "update audits set status = 'completed'")
		if p := s.nextProgress(t); p.Status != "completed" {
			t.Errorf("%s: %+v, want its end", begin, p)
		}
		s.cancel()
	}
}

// Another session that listens.
func TestAPISeveralThatBeginAfterAReconnect(t *testing.T) {
	overBoth(t, testAPISeveralThatBeginAfterAReconnect)
}

func testAPISeveralThatBeginAfterAReconnect(t *testing.T) {
	db := newDatabase(t)
	i := serve(t, db.Serve, noSafetyNet)
	i.waitReady(t, "up")
	s := i.open(t, severalPath, alice(t))
	s.wantSoFar(t, ": heartbeat every 30 s\n\nretry: 5000\n\n")
	db.sql(t, `select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
		where application_name = 'auditstream listener' and datname = current_database()`)
	id := db.insert(t, "", "") // while nobody listens
	s.wantEvent(t, `{"audit_id":`+id+`,"status":"pending","progress":0}`)
	i.waitReady(t, "up")
	id = db.insert(t, "", "")
	s.wantEvent(t, `{"audit_id":`+id+`,"status":"pending","progress":0}`)
}

func TestAPISeveralHundred(t *testing.T) { overBoth(t, testAPISeveralHundred) }

func testAPISeveralHundred(t *testing.T) {
	bothWays(t, func(t *testing.T, env string) {
		db := newDatabase(t)
		i := serve(t, db.Serve, env, noSafetyNet, "SSE_MAX_STREAMS=1")
		i.waitReady(t, "up")
		ids := db.insertMany(t, 101)
		got := i.ask(t, "GET", severalPath+"?ids="+strings.Join(ids, ","), "Authorization", "Bearer "+alice(t))
		if got.Status != 400 {
			t.Errorf("101 ids: status %d, want 400", got.Status)
		}
		s := i.open(t, severalPath+"?ids="+strings.Join(ids[:100], ","), alice(t))
		for _, id := range ids[:100] {
			s.wantEvent(t, `{"audit_id":`+id+`,"status":"running","progress":0,"total_pages":0}`)
		}
		// One stream, whatever it is of.
		for _, path := range []string{severalPath, severalPath + "?ids=1", "/api/v1/sse/audits/1/progress"} {
			withRandomRetry(t, i.open(t, path, alice(t)).whole(t), tooMany)
		}
		db.sql(t, "update audits set status = 'completed'")
		ends := map[int64]bool{}
		for range 100 {
			if p := s.nextProgress(t); p.Status == "completed" {
				ends[p.AuditID] = true
			}
		}
		if len(ends) != 100 || ends[101] {
			t.Errorf("%d ends, want 100", len(ends))
		}
		s.severalIDs(t)
	})
}

func TestAPISeveralOverHTTP2(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	certFile, keyFile, pool := selfSigned(t)
	i := serve(t, db.Serve, noSafetyNet, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile)
	i.waitLog(t, "listening for notifications")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	mine, both := i.openOn(t, transport, severalPath, alice(t)), ""
	if mine.Response.ProtoMajor != 2 {
		t.Fatalf("answered in %s", mine.Response.Proto)
	}
	for range 2 {
		id := db.insert(t, "", "")
		mine.wantEvent(t, `{"audit_id":`+id+`,"status":"pending","progress":0}`)
		both += "," + id
	}
	s := i.openOn(t, transport, severalPath+"?ids="+both[1:], alice(t)) // on the same connection
	s.next(t)
	s.next(t)
	db.sql(t, "update audits set status = 'failed'")
	for _, stream := range []*stream{mine, mine, s, s} {
		if p := stream.nextProgress(t); p.Status != "failed" {
			t.Errorf("%+v, want an end", p)
		}
	}
	s.severalIDs(t)
}
