package sql_test

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// Installs and uninstalls of several feeds at the same time do not disturb each other: none takes another feed's triggers for foreign ones.
func TestInstallsOfSeveralFeedsAtATime(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	const feeds = 6
	for n := range feeds {
		exec(t, conn, fmt.Sprintf(`create table jobs_%d (id int primary key, status text, progress int, user_id text)`, n))
	}
	before := catalog(t, conn)
	var group sync.WaitGroup
	for n := range feeds {
		group.Go(func() {
			name := fmt.Sprintf("jobs_%d", n)
			if err := installAndUninstall(t.Context(), dsn, sql.Options{Feed: name, Table: name, LockWait: 5 * time.Minute}); err != nil {
				t.Errorf("feed %s: %v", name, err)
			}
		})
	}
	group.Wait()
	equal(t, "what is left", difference(catalog(t, conn), before), nil)
}

func installAndUninstall(ctx context.Context, dsn string, o sql.Options) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for range 4 {
		for _, change := range []operation{sql.Install, sql.Install, sql.Uninstall} {
			if _, err := change(ctx, conn, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// A later install also records the options that only serve needs and that no view or trigger shows.
func TestLaterInstallChangesWhatServeIsTold(t *testing.T) {
	t.Parallel()
	_, conn := database(t)
	exec(t, conn, `create table jobs (id bigserial primary key, status text, progress int, user_id text)`)
	install(t, conn, sql.Options{Feed: "jobs", Table: "jobs"})
	for _, o := range []sql.Options{{Ends: []string{"done"}}, {Ends: []string{"done", "gone"}, Deleted: "gone"}, {Public: true},
		{Words: []sql.Word{{Stored: "x", Shown: "done"}}}, {Fields: []string{"progress2=progress"}}} {
		o.Feed, o.Table = "jobs", "jobs"
		if plan := install(t, conn, o); plan.SQL == "" {
			t.Errorf("%+v: nothing to change", o)
		}
		unchanged(t, conn, o)
	}
	unchanged(t, conn, sql.Options{Feed: "jobs", Table: "jobs"})
	feeds, err := sql.Feeds(t.Context(), conn)
	want := sql.Feed{Name: "jobs", View: "auditstream.progress_jobs", Ends: []string{"done", "gone"}, Deleted: "gone", Public: true, Fields: true}
	if len(feeds) == 1 {
		want.Mix = feeds[0].Mix
	}
	if err != nil || len(feeds) != 1 || !reflect.DeepEqual(feeds[0], want) {
		t.Errorf("got %+v, %v, want %+v", feeds, err, want)
	}
	refused(t, sql.Install, conn, sql.Options{Feed: "jobs", Table: "jobs", Deleted: "running"},
		"--deleted running: a deleted row has ended; give completed, failed, or --ends running as well")
}

// A second feed was installed without a role, and serve, which reads the first as its own role, answered for it that the database is away.
func TestSecondFeedWithoutTheRoleOfTheFirst(t *testing.T) {
	t.Parallel()
	dsn, conn := audits(t)
	exec(t, conn, `create table jobs (id bigserial primary key, status text, progress int, user_id text)`)
	jobs := sql.Options{Feed: "jobs", Table: "jobs"}
	equal(t, "warnings, where nobody needs a role", warnings(install(t, conn, jobs)), nil)
	reader := role(t, dsn)
	install(t, conn, sql.Options{Role: reader})
	equal(t, "warnings", warnings(install(t, conn, jobs)),
		[]string{"no role may read this feed, and " + reader + " may read another: if serve connects as that role, give --role " + reader})
	jobs.Role = reader
	equal(t, "warnings with the role", warnings(install(t, conn, jobs)), nil)
	equal(t, "later warnings", warnings(install(t, conn, sql.Options{Feed: "jobs"})), nil)
}

// TestFeedWithoutOwnersLeavesThatOfAnother: two feeds of one table have an owner trigger each, or none.
func TestFeedWithoutOwnersLeavesThatOfAnother(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	copies := sql.Options{Feed: "copies", Table: "public.audits", Columns: map[string]string{"user_id": "user_id"}}
	install(t, conn, copies)
	copies.Columns, copies.Public = map[string]string{"user_id": "", "user_email": ""}, true
	install(t, conn, copies)
	unchanged(t, conn, sql.Options{})
	equal(t, "the owner triggers", column(t, conn, `select tgname::text from pg_trigger where tgname like 'auditstream%owner'`), []string{"auditstream_owner"})
}
