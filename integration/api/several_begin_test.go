package api

import (
	"fmt"
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
		db, i := harness.ServeNew(t, env, noSafetyNet)
		s := i.Open(t, severalPath, harness.AliceToken(t))
		i.Shown(t, db.Insert(t, "status", "'running'"), harness.AliceToken(t))
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
		harness.Equal(t, len(seen), 3, "shown", seen, "of", ids)
		i.WantMetric(t, "auditstream_notifications_missed_total", 0)
		s.Cancel()
		db.WatchedBy(t, "new", 0) // inserts ring no more
	})
}

// An insert whose trigger looked before the stream came rings nothing when it commits.
func TestAPISeveralThatBeganInAnOpenTransaction(t *testing.T) {
	harness.OverHTTP1And2(t, testAPISeveralThatBeganInAnOpenTransaction)
}

func testAPISeveralThatBeganInAnOpenTransaction(t *testing.T) {
	db, i := harness.ServeNew(t, noSafetyNet)
	for _, begin := range []string{"begin", "begin isolation level repeatable read", "begin; savepoint a"} {
		w := pgtest.Connect(t, db.Admin)
		harness.Script(t, w, begin+"; insert into audits (url, user_id, progress) values ('https://example.com', 'alice', 7)")
		s := i.Open(t, severalPath, harness.AliceToken(t))
		s.WantSoFar(t, ": heartbeat every 30 s\n\nretry: 5000\n\n")
		harness.Script(t, w, "commit")
		s.WantProgress(t, 7)
		db.SQL(t, "update audits set status = 'completed'")
		harness.Equal(t, s.NextProgress(t).Status, "completed", begin)
		s.Cancel()
	}
}

// Another session that listens.
func TestAPISeveralThatBeginAfterAReconnect(t *testing.T) {
	harness.OverHTTP1And2(t, testAPISeveralThatBeginAfterAReconnect)
}

func testAPISeveralThatBeginAfterAReconnect(t *testing.T) {
	db, i := harness.ServeNew(t, noSafetyNet)
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
		db, i := harness.ServeNew(t, env, noSafetyNet, "SSE_MAX_STREAMS=1")
		ids := db.InsertMany(t, 101)
		got := i.AskAs(t, harness.AliceToken(t), severalPath+"?ids="+strings.Join(ids, ","))
		harness.Equal(t, got.Status, 400, "101 ids: status")
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
