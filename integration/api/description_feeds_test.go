package api

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// The feed jobs is of the table of audits, so that all that is described of both happens to the same rows.
func jobPath(path string) string { return strings.Replace(path, "/audits/", "/jobs/", 1) }

// streamPaths are the streams that show one row, and statusPaths are how it is read once.
func streamPaths(id string) []string {
	one, several := harness.StreamPath(id), severalPath+"?ids="+id
	return []string{one, several, jobPath(one), jobPath(several)}
}

func statusPaths(id string) []string {
	return []string{harness.StatusPath(id), jobPath(harness.StatusPath(id))}
}

// withJobs is a database with both.
func withJobs(t testing.TB, db harness.Database) harness.Database {
	t.Helper()
	harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall") // words that end a row are chosen anew
	for _, feed := range []string{"audits", "jobs"} {
		harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--feed", feed, "--table", "audits", "--role", harness.ServeRole, "--ends", "cancelled")
	}
	return db
}

// serveJobs is harness.Serve, once the feed is found.
func serveJobs(t testing.TB, dsn string, env ...string) *harness.Instance {
	t.Helper()
	i := harness.Serve(t, dsn, env...)
	i.WaitStatus(t, harness.AliceToken(t), jobPath(harness.StatusPath("0")), http.StatusBadRequest)
	return i
}

// allWatched waits until the requests of shutdownExchanges wait for the database, and reports whether they did before they gave up.
func allWatched(t testing.TB, i *harness.Instance) bool {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if i.Metric(t, "auditstream_watched_audits") >= 2 && i.Metric(t, `auditstream_watched_audits{feed="jobs"}`) >= 2 {
			return true
		}
	}
	return false
}

// A row ends by a word of its feed's.
func wordExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewDatabase(t))
	db.SQL(t, "alter table audits drop constraint audits_status_check")
	id := db.Insert(t, "status", "'cancelled'")
	i := serveJobs(t, db.Serve)
	for k, path := range streamPaths(id) {
		gone(t, i, path, harness.AliceToken(t))
		both(t, i, statusPaths(id)[k/2], "Authorization", "Bearer "+harness.AliceToken(t))
	}
	return []*harness.Instance{i}
}

// The newest 500 of all that is a user's are shown, and that there are more.
func moreExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewDatabase(t))
	db.InsertMany(t, 501)
	i := serveJobs(t, db.Serve)
	var streams []*harness.Stream
	for _, path := range []string{severalPath, jobPath(severalPath)} {
		s := i.Open(t, path, harness.AliceToken(t))
		streams = append(streams, s)
		for n := range 501 {
			e := s.Next(t)
			if last := n == 500; last != (e.Type == "more") || last && e.Data != `{"shown":500}` {
				t.Fatalf("%s: event %d is %q: %s", path, n, e.Type, e.Data)
			}
		}
	}
	i.Signal(t, syscall.SIGTERM) // what came is judged at the end
	for _, s := range streams {
		s.Whole(t)
	}
	i.End(t)
	return []*harness.Instance{i}
}
