package integration

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The feed jobs is of the table of audits, so that all that is described of both happens to the same rows.
func jobPath(path string) string { return strings.Replace(path, "/audits/", "/jobs/", 1) }

// streamPaths are the streams that show one row, and statusPaths are how it is read once.
func streamPaths(id string) []string {
	one, several := streamPath(id), severalPath+"?ids="+id
	return []string{one, several, jobPath(one), jobPath(several)}
}

func statusPaths(id string) []string { return []string{statusPath(id), jobPath(statusPath(id))} }

// withJobs is a database with both.
func withJobs(t testing.TB, db database) database {
	t.Helper()
	command(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall") // words that end a row are chosen anew
	for _, feed := range []string{"audits", "jobs"} {
		command(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--feed", feed, "--table", "audits", "--role", role, "--ends", "cancelled")
	}
	return db
}

// serveJobs is serve, once the feed is found.
func serveJobs(t testing.TB, dsn string, env ...string) *instance {
	t.Helper()
	i := serve(t, dsn, env...)
	eventually(t, func() error {
		if got := i.ask(t, "GET", jobPath(statusPath("0")), "Authorization", "Bearer "+alice(t)); got.Status != http.StatusBadRequest {
			return fmt.Errorf("the feed is not served: %d %s", got.Status, got.Body)
		}
		return nil
	})
	return i
}

// allWatched waits until the requests of shutdownExchanges wait for the database, and reports whether they did before they gave up.
func (i *instance) allWatched(t testing.TB) bool {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if i.metric(t, "auditstream_watched_audits") >= 2 && i.metric(t, `auditstream_watched_audits{feed="jobs"}`) >= 2 {
			return true
		}
	}
	return false
}

// A row ends by a word of its feed's.
func wordExchanges(t *testing.T) []*instance {
	db := withJobs(t, newDatabase(t))
	db.sql(t, "alter table audits drop constraint audits_status_check")
	id := db.insert(t, "status", "'cancelled'")
	i := serveJobs(t, db.Serve)
	for k, path := range streamPaths(id) {
		i.gone(t, path, alice(t))
		i.both(t, statusPaths(id)[k/2], "Authorization", "Bearer "+alice(t))
	}
	return []*instance{i}
}

// The newest 500 of all that is a user's are shown, and that there are more.
func moreExchanges(t *testing.T) []*instance {
	db := withJobs(t, newDatabase(t))
	db.insertMany(t, 501)
	i := serveJobs(t, db.Serve)
	var streams []*stream
	for _, path := range []string{severalPath, jobPath(severalPath)} {
		s := i.open(t, path, alice(t))
		streams = append(streams, s)
		for n := range 501 {
			e := s.next(t)
			if last := n == 500; last != (e.Type == "more") || last && e.Data != `{"shown":500}` {
				t.Fatalf("%s: event %d is %q: %s", path, n, e.Type, e.Data)
			}
		}
	}
	i.signal(t, syscall.SIGTERM) // what came is judged at the end
	for _, s := range streams {
		s.whole(t)
	}
	i.end(t)
	return []*instance{i}
}
