package pgnotify

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5/pgconn"
)

// feeds makes the part of an install that a lock session reads.
func feeds(t *testing.T, dsn string, class, buckets int) {
	t.Helper()
	pgtest.Psql(t, dsn, fmt.Sprintf(`create schema if not exists auditstream; create table if not exists auditstream.feeds (feed text primary key, class int, buckets int);
		insert into auditstream.feeds values ('audits', %d, %d) on conflict (feed) do update set class = excluded.class, buckets = excluded.buckets`, class, buckets))
}

// installed returns a database with the part of an install that a lock session reads.
func installed(t *testing.T) (dsn string) {
	t.Helper()
	dsn = pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	return dsn
}

// held returns the locks that sessions hold, as "class:bucket bucket".
func held(t *testing.T, dsn string) string {
	t.Helper()
	text := pgtest.Psql(t, dsn, `select coalesce(string_agg(x, ' ' order by x), '') from (select classid || ':' || string_agg(objid::text, ',' order by objid) x
		from pg_locks where locktype = 'advisory' and objsubid = 2 and database = (select oid from pg_database where datname = current_database()) group by classid) l`)
	for _, first := range []int{2, 64, 128, 4096} { // those of whatever begins
		var all []string
		for k := range newRowBuckets {
			all = append(all, fmt.Sprint(first+k))
		}
		text = strings.ReplaceAll(text, strings.Join(all, ","), fmt.Sprint(first))
	}
	return text
}

// registrarFixture is a registrar with a real session.
type registrarFixture struct {
	dsn       string
	registrar auditsOf
	log       *lines
	marked    atomic.Int64
}

func newHolding(t *testing.T, dsn string, change func(*setup)) *registrarFixture {
	t.Helper()
	h := &registrarFixture{dsn: dsn, log: &lines{written: make(chan string, 1000)}}
	logger := slog.New(slog.NewTextHandler(h.log, nil))
	cfg := newSetup(t, dsn)
	if change != nil {
		change(cfg)
	}
	h.registrar = withAudits(NewRegistrar(cfg.conn, cfg.pool, logger))
	h.registrar.Attach(func(func(store.Key) bool) { h.marked.Add(1) })
	t.Cleanup(func() {
		if h.registrar.Held() {
			t.Error("held after the end")
		}
	})
	runAll(t, h.registrar.Run)
	return h
}

// holds waits until held returns want.
func (h *registrarFixture) holds(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got := held(t, h.dsn)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("held: %q, want %q; log:\n%s", got, want, h.log)
		}
	}
}

// kill ends the session that holds the locks.
func (h *registrarFixture) kill(t *testing.T) {
	t.Helper()
	if n := pgtest.Psql(t, h.dsn, `select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and application_name = 'auditstream locks'`); n != "1" {
		t.Fatalf("%s sessions hold locks, want one", n)
	}
}

func TestHolderHoldsTheLocks(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	h := newHolding(t, dsn, nil)
	h.registrar.Want(in(7))
	h.registrar.Want(NewRows)
	h.holds(t, "78:7,4096")
	for range 2 {
		h.log.wait(t, "telling the triggers what is watched")
		h.kill(t)
		h.log.wait(t, "cannot learn what is watched, trying again")
		h.log.wait(t, "telling the triggers what is watched")
		h.holds(t, "78:7,4096")
		h.kill(t)
	}
	h.registrar.Leave(in(7))
	h.holds(t, "78:4096")
	h.registrar.Flood(true)
	h.holds(t, "")
	h.registrar.Flood(false)
	h.holds(t, "78:4096")
}

// A connection that passes nothing any more is closed.
func TestHalfOpenHolderIsNoticed(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	proxy, proxied := pgtest.ProxyDSN(t, dsn)
	h := newHolding(t, proxied, nil)
	testkit.Eventually(t, "held", h.registrar.Held)
	h.registrar.Want(in(7))
	testkit.Eventually(t, "announced", func() bool { return h.registrar.Announced(in(7)) })
	proxy.Pause()
	testkit.Eventually(t, "not held", func() bool { return !h.registrar.Held() && !h.registrar.Announced(in(7)) })
	proxy.DropAll()
	proxy.Resume()
	testkit.Eventually(t, "announced again", func() bool { return h.registrar.Announced(in(7)) })
}

// Through a transaction pooler no notification comes back, so no lock is acquired that would stay with another client.
func TestHolderTakesNoLockUnproven(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	var sent atomic.Int64
	early := make(chan string, 1)
	h := newHolding(t, dsn, func(cfg *setup) {
		pool := cfg.pool
		cfg.pool = otherPool{Pool: pool, exec: func(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
			switch sent.Add(1) {
			case 1:
				return pgconn.CommandTag{}, nil // and it never arrives
			case 2:
				early <- held(t, dsn)
			}
			return pool.Exec(ctx, query, args...)
		}}
	})
	h.registrar.Want(in(7))
	if got := <-early; got != "" {
		t.Errorf("held: %q", got)
	}
	h.holds(t, "78:7") // one notification that is late is no pooler, for which it would be a minute
}

// recordingConn keeps what is read from a connection.
type recordingConn struct {
	net.Conn
	mu   sync.Mutex
	text []byte
	n    int // reads
}

func (c *recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p[:n]...)
	c.n++
	return n, err
}

func (c *recordingConn) seen() (text string, reads int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text), c.n
}

// After its proof the session does not listen any more, which would slow down writers. PostgreSQL does not show what other sessions listen
// to, so the test looks at what arrives on the connection.
func TestHolderListensNoMore(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	var tap atomic.Pointer[recordingConn]
	var channel atomic.Value
	h := newHolding(t, dsn, func(cfg *setup) {
		cfg.conn.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
			tap.Store(&recordingConn{Conn: conn})
			return tap.Load(), nil
		}
		pool := cfg.pool
		cfg.pool = otherPool{Pool: pool, exec: func(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
			channel.Store(args[0])
			return pool.Exec(ctx, query, args...)
		}}
	})
	testkit.Eventually(t, "held", h.registrar.Held)
	_, before := tap.Load().seen()
	for _, name := range []string{channel.Load().(string), Channel} {
		pgtest.Psql(t, dsn, `select pg_notify('`+name+`', 'nobody listens')`)
	}
	for n := range int32(3) { // a notification comes before the answer to what is asked after it
		h.registrar.Want(in(n))
		testkit.Eventually(t, "the lock", func() bool { return h.registrar.Announced(in(n)) })
	}
	if text, reads := tap.Load().seen(); strings.Contains(text, "nobody listens") || reads < before+3 {
		t.Errorf("%d reads; the session listens", reads-before)
	}
}

// An install may change which locks the triggers ask for while sessions run. The old locks mean nothing then.
func TestInstallMayChangeTheLocks(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	h := newHolding(t, dsn, nil)
	h.log.wait(t, "the triggers cannot learn what is watched") // there is no install yet
	for _, b := range []int32{6, 70, 134} {                    // which are one lock of 64
		h.registrar.Want(in(b))
	}
	h.registrar.Want(NewRows)
	for _, step := range []struct {
		class, buckets int
		want           string
	}{{78, 4096, "78:6,70,134,4096"}, {78, 64, "78:6,64"}, {79, 64, "79:6,64"}, {79, 128, "79:6,70,128"}, {79, 1000, ""}, {79, 8192, ""}, {79, 0, ""}, {80, 2, "80:0,2"}} {
		feeds(t, dsn, step.class, step.buckets)
		h.registrar.Look()
		h.holds(t, step.want)
	}
	h.registrar.Leave(in(6))
	h.registrar.Leave(in(70))
	h.registrar.Leave(NewRows)
	h.holds(t, "80:0") // 134's
	h.registrar.Leave(in(134))
	h.holds(t, "")
	h.registrar.Want(in(6))
	h.holds(t, "80:0")
	pgtest.Psql(t, dsn, `drop schema auditstream cascade`)
	h.registrar.Look()
	h.holds(t, "")
}

// Locks of an earlier check are released.
func TestLocksOfAnEarlierInstallAreGivenBack(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	s := &lockSession{conn: pgtest.Connect(t, dsn), pool: newSetup(t, dsn).pool}
	for _, step := range []struct {
		class, buckets int
		want           string
	}{{78, 4096, "78:7"}, {79, 64, "79:7"}} {
		feeds(t, dsn, step.class, step.buckets)
		if _, unknown, err := s.readLockSpace(t.Context()); unknown != nil || err != nil {
			t.Fatal(unknown, err)
		}
		if got := held(t, dsn); got != "" {
			t.Errorf("held: %q, of what was asked for before", got)
		}
		if taken, err := s.acquire(t.Context(), []int32{7}); err != nil || len(taken) != 1 {
			t.Errorf("%v, %v", taken, err)
		}
		if got := held(t, dsn); got != step.want {
			t.Errorf("held: %q, want %q", got, step.want)
		}
	}
}

// An install may lock auditstream.feeds, for a moment or for long.
func TestLockedFeedsCostTheSessionAlone(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	h := newHolding(t, dsn, nil)
	h.registrar.Want(in(7))
	h.holds(t, "78:7")
	installer := pgtest.Connect(t, dsn)
	if _, err := installer.Exec(t.Context(), `begin; lock table auditstream.feeds`); err != nil {
		t.Fatal(err)
	}
	h.registrar.Look()
	h.holds(t, "")
	if _, err := installer.Exec(t.Context(), `commit`); err != nil {
		t.Fatal(err)
	}
	h.holds(t, "78:7")
}

// A failed statement keeps the locks that it had acquired: with a full lock table, each attempt left more of them, which nobody released.
func TestFullLockTableLeavesNoLockBehind(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewServer(t, func(cfg *localpg.Config) {
		cfg.Settings = map[string]string{"max_locks_per_transaction": "10", "max_connections": "20", "max_prepared_transactions": "0"}
	}).DSN("postgres")
	feeds(t, dsn, 78, 4096)
	h := newHolding(t, dsn, nil)
	for b := range int32(maxBuckets) {
		h.registrar.Want(in(b))
	}
	h.log.wait(t, "out of shared memory")
	for b := range int32(maxBuckets - 100) {
		h.registrar.Leave(in(b))
	}
	testkit.Eventually(t, "the others' locks", func() bool { return h.registrar.Unheld() == 0 })
	for b := range int32(100) {
		h.registrar.Leave(in(maxBuckets - 100 + b))
	}
	h.holds(t, "")
}

// After a failover the old primary may live on, with all connections to it. The locks must be on the server to which the application writes.
func TestHolderFollowsTheDatabase(t *testing.T) {
	t.Parallel()
	dsn := installed(t)
	var elsewhere atomic.Bool
	h := newHolding(t, dsn, func(cfg *setup) {
		pool := cfg.pool
		cfg.pool = otherPool{Pool: pool, row: func(dest ...any) error {
			if elsewhere.Load() {
				*dest[0].(*string) = "1"
				return nil
			}
			return pool.QueryRow(t.Context(), `select (extract(epoch from pg_postmaster_start_time()) * 1000000)::int8::text`).Scan(dest...)
		}}
	})
	h.registrar.Want(in(7))
	h.holds(t, "78:7")
	h.log.wait(t, "telling the triggers what is watched")
	elsewhere.Store(true)
	h.registrar.Look()
	h.log.wait(t, "on another server than the database")
	h.holds(t, "")
	elsewhere.Store(false)
	h.log.wait(t, "telling the triggers what is watched")
	h.holds(t, "78:7")
}
