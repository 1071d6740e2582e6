package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// Streams of all feeds outlive the database, and feeds are found that are installed when it is back.
func TestFeedsOutliveTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	db := harness.Adopt(t, server.DSN("postgres"))
	const id = "00000000-0000-0000-0000-000000000001"
	db.SQL(t, `create table jobs (id uuid primary key, status text, progress int, user_id text); insert into jobs values ('`+id+`', 'running', 0, 'alice');
		create table mails (id text primary key, status text, progress int, user_id text); insert into mails values ('ä/1', 'running', 0, 'alice')`)
	run := func(args ...string) { harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, args...) }
	for _, feed := range []string{"jobs", "mails"} {
		run("install", "--feed", feed, "--role", harness.ServeRole)
	}
	audit := db.Insert(t, "", "")
	i := harness.ServeReady(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	alice := harness.Token(t, jwt.MapClaims{"sub": "alice"})
	streams := map[string]*harness.Stream{}
	for table, path := range map[string]string{"audits": "audits/" + audit, "jobs": "jobs/" + id, "mails": "mails/%C3%A4%2F1"} {
		streams[table] = i.Open(t, "/api/v1/sse/"+path+"/progress", alice)
		streams[table].Next(t)
	}
	for n, down := range []func() error{
		func() error { return server.StopImmediate(t.Context()) }, func() error { return server.Crash(t.Context()) }, func() error { return server.StopFast(t.Context()) },
	} {
		harness.NoError(t, down())
		i.WaitStatus(t, "", "/readyz", http.StatusServiceUnavailable)
		harness.NoError(t, server.Restart(t.Context()))
		feed := fmt.Sprintf("late_%d", n)
		run("install", "--feed", feed, "--table", "jobs", "--role", harness.ServeRole)
		for table, st := range streams {
			db.SQL(t, fmt.Sprintf(`update %s set progress = %d`, table, 10*n+10))
			st.Until(t, func(p harness.Progress) bool { return p.Progress == 10*n+10 })
		}
		i.WaitStatus(t, alice, "/api/v1/"+feed+"/"+id+"/status", http.StatusOK)
	}
}

// A program that starts while the database cannot be reached knows its feeds as soon as it can be: streams of all but audits were told to
// come back for up to nine seconds more. Three attempts, since the machine may stand still for two seconds.
func TestFeedsAreKnownSoonAfterAStartWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	const most = 2 * time.Second
	db := harness.NewDatabase(t)
	const id = "00000000-0000-0000-0000-000000000001"
	db.SQL(t, `create table jobs (id uuid primary key, status text, progress int, user_id text); insert into jobs values ('`+id+`', 'running', 0, 'alice')`)
	harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--feed", "jobs", "--role", harness.ServeRole)
	alice := harness.Token(t, jwt.MapClaims{"sub": "alice"})
	var late []time.Duration
	for range 3 {
		hole, url := pgtest.ProxyDSN(t, db.Serve)
		deaf, listen := pgtest.ProxyDSN(t, db.Serve) // a connection that listens would have it looked
		hole.Pause()
		deaf.Pause()
		i := harness.Serve(t, url, "DATABASE_LISTEN_URL="+listen)
		status := func(path string) int { return i.AskAs(t, alice, path).Status }
		if got := status("/api/v1/jobs/" + id + "/status"); got != http.StatusServiceUnavailable {
			t.Fatalf("without the database: %d, want 503", got)
		}
		unknown := func() int { return strings.Count(i.Log.String(), "which feeds there are is not known") }
		asked := unknown()
		harness.Eventually(t, func() error {
			if unknown() == asked {
				return errors.New("the database was not asked again")
			}
			return nil
		})
		hole.Resume()
		answers := func(path string, want int) time.Time {
			harness.Becomes(t, func() int { return status(path) }, want, path)
			return time.Now()
		}
		read := answers("/api/v1/audits/1/status", http.StatusNotFound) // the database is read
		late = append(late, answers("/api/v1/jobs/"+id+"/status", http.StatusOK).Sub(read))
		if late[len(late)-1] < most {
			return
		}
	}
	t.Errorf("the feed was known %v after the database could be read, want less than %v", late, most)
}
