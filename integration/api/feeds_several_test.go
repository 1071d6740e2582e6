package api

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
)

// several is a database without audits, with feeds of these install commands.
func several(t *testing.T, ddl string, installs ...string) (harness.Database, func(command string) string) {
	t.Helper()
	dsn := pgtest.New(t)
	harness.Install(t, pgtest.New(t)) // makes the role
	pgtest.Psql(t, dsn, ddl)
	run := func(line string) string {
		return harness.RunCommand(t, []string{"DATABASE_URL=" + dsn}, strings.Split(line, " ")...)
	}
	for _, line := range installs {
		run("install --role " + harness.ServeRole + " " + line)
	}
	return harness.Adopted(t, dsn), run
}

// A schema for each tenant, with the same table and the same ids in each, and two feeds of one table: what one shows, no other does.
func TestFeedsOfTenants(t *testing.T) {
	t.Parallel()
	var ddl string
	var installs []string
	for n := range 3 {
		ddl += fmt.Sprintf(`create schema t%[1]d; create table t%[1]d.jobs (id bigserial primary key, status text not null default 'running', progress int not null default 0, owner text, org text);
			insert into t%[1]d.jobs (owner, org) values ('alice', 'a'), ('bob', 'b'); `, n)
		installs = append(installs, fmt.Sprintf("--feed tenant_%d --table t%[1]d.jobs --column user_id=owner", n))
	}
	installs = append(installs, "--feed everybodys --table t0.jobs --column user_id= --field org --public")
	db, run := several(t, ddl, installs...)
	harness.WantIn(t, run("install "+installs[1]), "nothing to change")
	if out := harness.RunCommand(t, []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + harness.JWTSecret}, "doctor"); strings.Contains(out, "FAIL") || strings.Count(out, "its keys are of type") != 4 {
		t.Errorf("doctor:\n%s", out)
	}
	if out := harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin, "JWT_SECRET=" + harness.JWTSecret}, "doctor"); !strings.Contains(out, "not as a superuser") || strings.Contains(out, "statuses") {
		t.Errorf("doctor as a superuser:\n%s", out)
	}
	i := harness.ServeReady(t, db.Serve)
	alice := harness.Token(t, jwt.MapClaims{"sub": "alice"})
	streams := make([]*harness.Stream, 4)
	for n, feed := range []string{"tenant_0", "tenant_1", "tenant_2", "everybodys"} {
		streams[n] = i.Open(t, "/api/v1/sse/"+feed+"/1/progress", alice)
		streams[n].Next(t)
		want := http.StatusForbidden
		if feed == "everybodys" {
			want = http.StatusOK
		}
		i.AskAs(t, alice, "/api/v1/"+feed+"/2/status").WantStatus(t, want)
	}
	for n := range 3 {
		db.SQL(t, fmt.Sprintf(`update t%d.jobs set progress = %d`, n, 10*n+10))
		streams[n].WantEvent(t, fmt.Sprintf(`{"id":1,"status":"running","progress":%d}`, 10*n+10))
	}
	streams[3].WantEvent(t, `{"id":1,"status":"running","progress":10,"org":"a"}`)
	// Audits is not there, and nobody misses it.
	i.AskAs(t, alice, "/api/v1/audits/1/status").WantStatus(t, http.StatusNotFound)
	db.SQL(t, `update t0.jobs set status = 'completed'`)
	for _, n := range []int{0, 3} {
		streams[n].Next(t)
		streams[n].Ended(t)
	}
	db.SQL(t, `update t2.jobs set progress = 99`)
	streams[2].WantEvent(t, `{"id":1,"status":"running","progress":99}`)
	run("uninstall")
	db.WantSQL(t, `select (select count(*) from pg_trigger where tgname ~ '^auditstream_') + (select count(*) from pg_namespace where nspname = 'auditstream')`, "0")
}

// Feeds come and go while writers write to all tables and others are watched: nobody else notices, and no write fails.
func TestFeedsComeAndGoWhileOthersAreWatched(t *testing.T) {
	t.Parallel()
	db, run := several(t, `create table jobs (id uuid primary key default gen_random_uuid(), status text, progress int, user_id text); insert into jobs values ('00000000-0000-0000-0000-000000000001', 'running', 0, 'alice');
		create table mails (id text primary key, status text, progress int, user_id text); insert into mails values ('a/b', 'running', 0, 'alice')`, "--feed jobs")
	i := harness.ServeReady(t, db.Serve)
	alice := harness.Token(t, jwt.MapClaims{"sub": "alice"})
	const id = "00000000-0000-0000-0000-000000000001"
	st := i.Open(t, "/api/v1/sse/jobs/"+id+"/progress", alice)
	st.Next(t)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var wrote atomic.Int64
	for _, table := range []string{"jobs", "mails"} {
		writers.Go(func() {
			conn, err := pgx.Connect(ctx, db.Admin)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			for ctx.Err() == nil {
				if _, err := conn.Exec(ctx, `update `+table+` set progress = (progress + 1) % 90`); err != nil && ctx.Err() == nil {
					t.Errorf("a write to %s: %v", table, err)
					return
				}
				wrote.Add(1)
			}
		})
	}
	for round := range 4 {
		run("install --feed mails --role " + harness.ServeRole)
		i.WaitStatus(t, alice, "/api/v1/mails/a%2Fb/status", http.StatusOK)
		mail := i.Open(t, "/api/v1/sse/mails/a%2Fb/progress", alice)
		for range 3 {
			mail.Next(t)
		}
		run("uninstall --feed mails")
		i.WaitStatus(t, alice, "/api/v1/mails/a%2Fb/status", http.StatusServiceUnavailable)
		i.WaitMetric(t, `auditstream_streams_ended_total{reason="feed changed"}`, harness.Exactly(float64(round+1)))
		before := wrote.Load()
		for range 5 {
			st.Next(t)
		}
		t.Logf("round %d: %d writes", round, wrote.Load()-before)
	}
	stop()
	writers.Wait()
	db.SQL(t, `update jobs set status = 'completed', progress = 100`)
	for !strings.Contains(st.Next(t).Data, "completed") {
	}
	st.Ended(t)
	i.WantMetric(t, `auditstream_notifications_missed_total{feed="jobs"}`, 0)
}

// Progress that is in a child table is shown by a view of the operator's own, and a change there is pushed.
func TestOwnViewWithRing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "view.sql")
	err := os.WriteFile(file, []byte(`-- how far each is
select j.id, j.state as status, j.owner as user_id, j.title, j.trouble as error, (select 100 * count(*) filter (where s.done) / nullif(count(*), 0) from public.steps s where s.job_id = j.id) as progress
from public.jobs j;
`), 0o600)
	harness.NoError(t, err)
	db, run := several(t, `create table jobs (id bigserial primary key, title text, owner text, state text, trouble text); create table steps (id bigserial primary key, job_id int, done boolean default false);
		create index on steps (job_id); insert into jobs (title, owner, state) values ('one', 'alice', 'working'); insert into steps (job_id) values (1), (1)`,
		"--feed jobs --table jobs --view "+file+" --ring steps=job_id --field title --status working=running")
	harness.WantIn(t, run("install --feed jobs"), "nothing to change")
	i := harness.ServeReady(t, db.Serve)
	alice := harness.Token(t, jwt.MapClaims{"sub": "alice"})
	st, all := i.Open(t, "/api/v1/sse/jobs/1/progress", alice), i.Open(t, "/api/v1/sse/jobs/progress", alice)
	for _, step := range []struct{ change, want string }{
		{`select 1`, `{"id":1,"status":"running","progress":0,"title":"one"}`},
		{`update steps set done = true where id = 1`, `{"id":1,"status":"running","progress":50,"title":"one"}`},
		{`delete from steps where id = 2`, `{"id":1,"status":"running","progress":100,"title":"one"}`},
		{`insert into steps (job_id) select 1 from generate_series(1, 3)`, `{"id":1,"status":"running","progress":25,"title":"one"}`},
		{`update jobs set state = 'failed', trouble = 'no paper'`, `{"id":1,"status":"failed","progress":25,"title":"one","error":"no paper"}`},
	} {
		db.SQL(t, step.change)
		for _, s := range []*harness.Stream{st, all} {
			if got := s.Next(t).Data; got != step.want {
				t.Fatalf("after %s: got %s, want %s", step.change, got, step.want)
			}
		}
	}
	st.Ended(t)
	i.AskAs(t, harness.Token(t, jwt.MapClaims{"sub": "mallory"}), "/api/v1/jobs/1/status").WantStatus(t, http.StatusForbidden)
	i.WantMetric(t, `auditstream_notifications_missed_total{feed="jobs"}`, 0)
}

// Whoever has no table has one made, and reports from any language, as docs/adopt-a-table.md says.
func TestReportIsShown(t *testing.T) {
	t.Parallel()
	const page = "docs/adopt-a-table.md"
	made := strings.TrimPrefix(harness.CommandsOf(t, page)["No table at all"][0], "sh\nauditstream ")
	reports := regexp.MustCompile(`(?m)^    (select auditstream\.report\(.*\))$`).FindAllStringSubmatch(harness.Document(t, page), -1)
	if len(reports) != 3 {
		t.Fatalf("%d reports in %s, want 3", len(reports), page)
	}
	db, run := several(t, `select 1`)
	run(strings.TrimSpace(made) + " --role " + harness.ServeRole)
	harness.WantIn(t, run(strings.TrimSpace(made)), "nothing to change")
	i := harness.ServeReady(t, db.Serve)
	var st *harness.Stream
	for n, want := range []string{`{"id":"file 7","status":"running","progress":0}`, `{"id":"file 7","status":"running","progress":40,"message":"page 4 of 10"}`,
		`{"id":"file 7","status":"completed","progress":100}`} {
		db.SQL(t, reports[n][1])
		if st == nil {
			st = i.Open(t, "/api/v1/sse/jobs/file%207/progress", harness.Token(t, jwt.MapClaims{"sub": "alice"}))
		}
		if got := st.Next(t).Data; got != want {
			t.Fatalf("after %s: got %s, want %s", reports[n][1], got, want)
		}
	}
	st.Ended(t)
}

// The viewers of a feed come back after uninstall, a migration and install, and whoever asks for a feed that was installed a moment ago sees it:
// both were told, for good, that there is no such feed.
func TestFeedThatIsInstalledAgainKeepsItsViewers(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	const id = "00000000-0000-0000-0000-000000000001"
	db.SQL(t, `create table jobs (id uuid primary key, status text, progress int, user_id text); insert into jobs values ('`+id+`', 'running', 1, 'alice')`)
	run := func(args ...string) { harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, args...) }
	i := harness.ServeReady(t, db.Serve)
	status := func(feed string) harness.Answer {
		return i.AskAs(t, harness.AliceToken(t), "/api/v1/"+feed+"/"+id+"/status")
	}
	if got := status("jobs"); got.Status != http.StatusNotFound || got.Header.Get("Auditstream-Answer") != "final" {
		t.Errorf("a feed that was never there: %d, want a final 404", got.Status)
	}
	for _, feed := range []string{"jobs", "exports", "imports"} { // each within a second of the one before
		run("install", "--feed", feed, "--table", "jobs", "--role", harness.ServeRole)
		status(feed).WantStatus(t, http.StatusOK)
	}
	run("uninstall", "--feed", "jobs")
	harness.Eventually(t, func() error {
		if got := status("jobs"); got.Status != http.StatusServiceUnavailable || got.Header.Get("Auditstream-Answer") != "" {
			return fmt.Errorf("uninstalled: %d, want 503", got.Status)
		}
		return nil
	})
	run("install", "--feed", "jobs", "--role", harness.ServeRole)
	i.WaitStatus(t, harness.AliceToken(t), "/api/v1/jobs/"+id+"/status", http.StatusOK)
}
