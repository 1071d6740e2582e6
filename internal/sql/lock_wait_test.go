package sql_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// signal is a log handler that closes logged with its first message.
type signal struct {
	logged chan struct{}
	once   sync.Once
	slog.Handler
}

func (s *signal) Handle(ctx context.Context, r slog.Record) error {
	err := s.Handler.Handle(ctx, r)
	s.once.Do(func() { close(s.logged) })
	return err
}

// waitingInstall begins an install, and returns when it has logged that it waits for a lock.
func waitingInstall(ctx context.Context, conn *pgx.Conn, o sql.Options) (log *bytes.Buffer, done chan error) {
	log, done = new(bytes.Buffer), make(chan error, 1)
	waiting := &signal{logged: make(chan struct{}), Handler: slog.NewTextHandler(log, nil)}
	o.Logger = slog.New(waiting)
	go func() {
		_, err := sql.Install(ctx, conn, o)
		done <- err
	}()
	<-waiting.logged
	return log, done
}

// TestInstallNeverStopsTheApplication: a long transaction holds the table while other sessions go on writing to it.
func TestInstallNeverStopsTheApplication(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer);
		insert into audits values (1, 'running', 1), (2, 'running', 1)`)
	long := pgtest.Connect(t, dsn)
	exec(t, long, `set application_name = 'long worker'`)
	exec(t, long, `begin; update audits set progress = 2 where id = 1`)

	const lockTimeout = 200 * time.Millisecond
	log, installed := waitingInstall(t.Context(), conn, sql.Options{LockTimeout: lockTimeout, LockWait: time.Minute})
	writer := pgtest.Connect(t, dsn)
	var slowest time.Duration
	writes := 0
	for start := time.Now(); time.Since(start) < 3*time.Second; writes++ {
		before := time.Now()
		exec(t, writer, `update audits set progress = progress + 1 where id = 2`)
		slowest = max(slowest, time.Since(before))
	}
	t.Logf("%d writes during the install, the slowest took %v", writes, slowest)
	// The rest is what a busy machine with the race detector needs; the long transaction takes three seconds.
	if limit := lockTimeout + 1200*time.Millisecond; slowest > limit {
		t.Errorf("a write took %v, want at most %v", slowest, limit)
	}
	select {
	case err := <-installed:
		t.Fatalf("install ended while the table was locked: %v", err)
	default:
	}
	exec(t, long, `commit`)
	err := <-installed
	if err != nil {
		t.Fatalf("install: %v", err)
	}
	if !strings.Contains(log.String(), "long worker") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("the log should say once who holds the lock: %s", log.String())
	}
	listen(t, dsn).notifies(t, writer, `update audits set progress = 5 where id = 1`, "1")
}

func TestInstallGivesUp(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer) partition by range (id);
		create table audits_1 partition of audits for values from (0) to (10); insert into audits values (1, 'running', 1)`)
	before := catalog(t, conn)
	long := pgtest.Connect(t, dsn)
	exec(t, long, `set application_name = 'long worker'`)
	exec(t, long, `begin; update audits_1 set progress = 2`)
	_, err := sql.Install(t.Context(), conn, sql.Options{LockTimeout: 20 * time.Millisecond, LockWait: 300 * time.Millisecond})
	want := regexp.MustCompile(`^install: no lock on "public"."audits" within \d+(\.\d+)?m?s: it is held by process \d+ \(long worker, ` +
		`idle in transaction, in a transaction for \d\d:\d\d:\d\d\); nothing was changed; try again when it is free$`)
	if err == nil || !want.MatchString(err.Error()) {
		t.Errorf("got %v, want %v", err, want)
	}
	equal(t, "catalog", catalog(t, conn), before)
	exec(t, long, `rollback`)
	install(t, conn, sql.Options{})

	// Uninstall waits for readers, too.
	exec(t, long, `begin; select from audits`)
	_, err = sql.Uninstall(t.Context(), conn, sql.Options{LockTimeout: 20 * time.Millisecond, LockWait: 300 * time.Millisecond})
	const begins = `uninstall: no lock on "public"."audits" within `
	if err == nil || !strings.HasPrefix(err.Error(), begins) || !strings.Contains(err.Error(), "long worker") {
		t.Errorf("got %v, want who holds the lock", err)
	}
	exec(t, long, `rollback`)
	uninstall(t, conn)
	equal(t, "catalog", catalog(t, conn), before)
}

func TestInstallIsCancelledWhileItWaits(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer)`)
	long := pgtest.Connect(t, dsn)
	before := catalog(t, long)
	exec(t, long, `begin; lock table audits in row exclusive mode`)
	ctx, cancel := context.WithCancel(t.Context())
	_, installed := waitingInstall(ctx, conn, sql.Options{LockTimeout: 20 * time.Millisecond})
	cancel()
	err := <-installed
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	exec(t, long, `rollback`)
	equal(t, "catalog", catalog(t, long), before)
}

func TestInstallRefusesAConnectionInATransaction(t *testing.T) {
	t.Parallel()
	_, conn := audits(t)
	exec(t, conn, `begin`)
	refused(t, sql.Install, conn, sql.Options{}, "the connection is in a transaction: use one that is not, because this needs a transaction of its own")
	equal(t, "the transaction", column(t, conn, `select (now() < clock_timestamp())::text`), []string{"true"})
	exec(t, conn, `rollback`)
}

func TestConcurrentInstalls(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, `create table audits (id bigint primary key, status text, progress integer);
		create table jobs (id bigint primary key, status text, progress integer)`)
	results := make(chan error)
	const each = 4
	for i := range 2 * each {
		table := []string{"audits", "jobs"}[i%2]
		c := pgtest.Connect(t, dsn)
		go func() {
			_, err := sql.Install(t.Context(), c, sql.Options{Table: table})
			results <- err
		}()
	}
	failed := 0
	for range 2 * each {
		err := <-results
		if err == nil {
			continue
		}
		failed++
		if !strings.Contains(err.Error(), "take this one away first") {
			t.Error(err)
		}
	}
	if failed != each {
		t.Errorf("%d installs failed, want those of one table: %d", failed, each)
	}
	// One table has it all, the other nothing.
	equal(t, "triggers", column(t, conn, `select count(*) || ' on ' || count(distinct tgrelid) from pg_trigger where not tgisinternal`),
		[]string{"5 on 1"})
	s, err := sql.Inspect(t.Context(), conn)
	if err != nil || s.View != nil {
		t.Fatalf("inspect: %+v, %v", s, err)
	}
	unchanged(t, conn, sql.Options{Table: s.Table}) // the winner has all
}

// Where nobody is known to hold the lock, as of a ring's table, the message had an empty held_by.
func TestWaitForALockThatNobodyIsKnownToHold(t *testing.T) {
	t.Parallel()
	dsn, conn := database(t)
	exec(t, conn, jobsWithSteps)
	other := pgtest.Connect(t, dsn)
	exec(t, other, `begin; insert into app.steps (done) values (true)`)
	log, done := waitingInstall(t.Context(), conn, sql.Options{Feed: "jobs", Table: "app.jobs", View: stepsView, Rings: []string{"steps=job_id"}, LockWait: time.Minute})
	exec(t, other, `rollback`)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "waiting for a lock") || strings.Contains(text, "held_by") {
		t.Errorf("logged %s", text)
	}
}
