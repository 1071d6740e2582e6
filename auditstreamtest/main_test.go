package auditstreamtest_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"auditstream"
	"auditstream/auditstreamtest"
	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5/pgxpool"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// yourDatabase returns a database for one test, whose row 42 is user-1's.
func yourDatabase(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.New(t))
	testkit.NoError(t, err)
	t.Cleanup(pool.Close)
	execute(t, pool, `create table audits (id bigint primary key, user_id text, status text not null default 'running', progress int not null default 0);
		insert into audits values (42, 'user-1'), (43, 'user-2')`)
	return pool
}

// watched returns a database and a server on it with a viewer of row 42.
func watched(t testing.TB, options ...auditstreamtest.Option) (*pgxpool.Pool, *auditstreamtest.Server, *auditstreamtest.Viewer) {
	t.Helper()
	pool := yourDatabase(t)
	srv := auditstreamtest.New(t, pool, options...)
	return pool, srv, srv.Watch(t, "42", auditstreamtest.As("user-1"))
}

func execute(t testing.TB, pool *pgxpool.Pool, sql string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql)
	testkit.NoError(t, err)
}

// failing is a testing.TB for tests that must fail: it keeps Fatalf's text.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// fails runs a test that must fail, and checks that the failure's text contains each of want.
func fails(t *testing.T, run func(t testing.TB), want ...string) {
	t.Helper()
	contains(t, failure(t, run), want...)
}

// failure returns Fatalf's text, "" if the test has passed.
func failure(t *testing.T, run func(t testing.TB)) string {
	t.Helper()
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() { defer close(done); run(f) }()
	<-done
	return f.message
}

func contains(t *testing.T, message string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(message, text) {
			t.Errorf("the failure does not say %q:\n%s", text, message)
		}
	}
}

// A user's first test has at most ten lines, and takes at most 3 s more than the database.
func TestFirstTestIsShortAndFast(t *testing.T) {
	source, err := os.ReadFile("first_test.go")
	testkit.NoError(t, err)
	_, body, _ := strings.Cut(string(source), "\nfunc Test")
	page, err := os.ReadFile("../docs/testing.md")
	testkit.NoError(t, err)
	if !strings.Contains(string(page), "```go\nfunc Test"+body+"```\n") {
		t.Error("docs/testing.md shows another test than first_test.go")
	}
	if n := strings.Count(body, "\n"); n > 10 {
		t.Errorf("the first test has %d lines, want 10 at most", n)
	}
	fastest := time.Hour
	for range 3 { // a pause of the machine may spoil one
		pool := yourDatabase(t)
		begin := time.Now()
		srv := auditstreamtest.New(t, pool, auditstreamtest.Table("public.audits"))
		viewer := srv.Watch(t, "42", auditstreamtest.As("user-1"))
		execute(t, pool, "update audits set progress = 55 where id = 42")
		viewer.Wait(t, auditstreamtest.Progress(55))
		fastest = min(fastest, time.Since(begin))
	}
	t.Logf("%v", fastest)
	if fastest > 3*time.Second {
		t.Errorf("the first test takes %v, want 3 s at most", fastest)
	}
}

const soon = 1500 * time.Millisecond // in tests of what does not come

func tables() []auditstreamtest.Option {
	return []auditstreamtest.Option{auditstreamtest.Table("public.audits"), auditstreamtest.Timeout(soon)}
}

func TestFailureGuessesThatNothingIsCommitted(t *testing.T) {
	t.Parallel()
	pool, _, viewer := watched(t, tables()...)
	tx, err := pool.Begin(t.Context())
	testkit.NoError(t, err)
	_, err = tx.Exec(t.Context(), "update audits set progress = 55 where id = 42")
	testkit.NoError(t, err)
	fails(t, func(t testing.TB) { viewer.Wait(t, auditstreamtest.Progress(55)) },
		"audits 42 of user \"user-1\"", `{"audit_id":42,"status":"running","progress":0}`,
		"a transaction that writes to audits is still open", "idle in transaction", "update audits set progress = 55", "nothing was committed that is waited for")
	testkit.NoError(t, tx.Commit(t.Context()))
	viewer.Wait(t, auditstreamtest.Progress(55))
}

func TestFailureGuessesThatThereIsNoRow(t *testing.T) {
	t.Parallel()
	srv := auditstreamtest.New(t, yourDatabase(t), tables()...)
	fails(t, func(t testing.TB) { srv.Watch(t, "44", auditstreamtest.As("user-1")) }, "status 404", "there is no such row", "not committed yet")
}

func TestFailureGuessesThatAnotherOwnsIt(t *testing.T) {
	t.Parallel()
	srv := auditstreamtest.New(t, yourDatabase(t), tables()...)
	fails(t, func(t testing.TB) { srv.Watch(t, "43", auditstreamtest.As("user-1")) }, "status 403", `another owner: it is of user "user-2", and "user-1" watches`)
	fails(t, func(t testing.TB) { srv.Watch(t, "43") }, `and "" watches; see As`)
}

func TestFailureGuessesThatTriggersAreMissing(t *testing.T) {
	t.Parallel()
	pool, _, viewer := watched(t, tables()...)
	execute(t, pool, "alter table audits disable trigger user")
	message := ""
	for n := 1; message == "" && n < 100; n++ { // while the server begins it reads all that is watched now and then
		execute(t, pool, fmt.Sprintf("update audits set progress = %d where id = 42", n))
		message = failure(t, func(t testing.TB) { viewer.Wait(t, auditstreamtest.Progress(n)) })
	}
	contains(t, message, "trigger auditstream_update", "install it again", "was not announced")
}

func TestFailureGuessesThatNothingIsAdopted(t *testing.T) {
	t.Parallel()
	fails(t, func(t testing.TB) { auditstreamtest.New(t, yourDatabase(t)) }, "not installed", "give New the option Table")
	srv := auditstreamtest.New(t, yourDatabase(t), tables()...)
	fails(t, func(t testing.TB) { srv.Watch(t, "42", auditstreamtest.Feed("jobs")) }, "no table was adopted as feed jobs")
}

// A viewer sees all that is committed after Watch has returned, through each fault.
func TestFaults(t *testing.T) {
	t.Parallel()
	pool, srv, viewer := watched(t, auditstreamtest.Table("public.audits"), auditstreamtest.Timeout(time.Minute))
	sees := func(progress int) {
		t.Helper()
		execute(t, pool, fmt.Sprintf("update audits set progress = %d where id = 42", progress))
		viewer.Wait(t, auditstreamtest.Progress(progress))
	}
	sees(1)
	sessions := func() (pids string) {
		t.Helper()
		err := pool.QueryRow(t.Context(), `select coalesce(string_agg(pid::text, ' ' order by pid), '') from pg_stat_activity
			where datname = current_database() and application_name in ('auditstream listener', 'auditstream locks')`).Scan(&pids)
		testkit.NoError(t, err)
		return pids
	}
	before := strings.Fields(sessions())
	testkit.Equal(t, len(before), 2, "sessions that listen or hold locks:", before)
	srv.CutListener()
	testkit.Eventually(t, "both are new", func() bool {
		now := strings.Fields(sessions())
		return len(now) == 2 && !slices.Contains(before, now[0]) && !slices.Contains(before, now[1])
	})
	sees(2)
	srv.Restart(t)
	sees(3)
	resume := srv.PauseDatabase(t)
	execute(t, pool, "update audits set progress = 4 where id = 42")
	resume()
	viewer.Wait(t, auditstreamtest.Progress(4))
	sees(5)
	last := 0
	for _, s := range viewer.States() {
		if s.Progress < last {
			t.Errorf("a state came that is older than the one before: %s", s.JSON)
		}
		last = s.Progress
	}
}

// Several servers on one database, by URL, in parallel tests with a row each.
func TestOneDatabaseForAll(t *testing.T) {
	t.Parallel()
	pool := yourDatabase(t)
	execute(t, pool, "insert into audits select n, 'user-1' from generate_series(100, 104) n")
	for n := range 4 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			srv := auditstreamtest.New(t, pool.Config().ConnString(), auditstreamtest.Table("audits"))
			viewer := srv.Watch(t, fmt.Sprint(100+n), auditstreamtest.As("user-1"))
			execute(t, pool, fmt.Sprintf("update audits set progress = 100, status = 'completed' where id = %d", 100+n))
			if state := viewer.Wait(t, auditstreamtest.Ended()); state.Status != "completed" || state.Progress != 100 {
				t.Errorf("the end is %+v", state)
			}
			viewer.Wait(t, auditstreamtest.Status("completed"))
		})
	}
}

// A status of the table's own ends a row, too; and a row's deletion is reported.
func TestEndsOfOtherFeeds(t *testing.T) {
	t.Parallel()
	pool := yourDatabase(t)
	srv := auditstreamtest.New(t, pool, auditstreamtest.Adopt(auditstream.Table{Name: "audits", Feed: "jobs", Ends: []string{"stopped"}}))
	stopped := srv.Watch(t, "42", auditstreamtest.As("user-1"), auditstreamtest.Feed("jobs"))
	gone := srv.Watch(t, "43", auditstreamtest.As("user-2"), auditstreamtest.Feed("jobs"))
	execute(t, pool, "update audits set status = 'stopped' where id = 42; delete from audits where id = 43")
	if state := stopped.Wait(t, auditstreamtest.Ended()); state.Status != "stopped" {
		t.Errorf("the end is %+v", state)
	}
	fails(t, func(t testing.TB) { gone.Wait(t, auditstreamtest.Ended()) }, "No such row", "there is no such row")
}
