package pgnotify

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/pgtest"
	"auditstream/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// patience bounds waits for what must happen; it only ends tests that have failed.
const patience = 30 * time.Second

type execFunc func(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)

func (f execFunc) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return f(ctx, sql, args...)
}

// lines is a log that can be waited for.
type lines struct {
	logs
	written chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.written <- string(p)
	return l.logs.Write(p)
}

// fixture is a listener that runs against a database of the test's own.
type fixture struct {
	dsn       string
	sink      sink
	log       *lines
	reg       *prometheus.Registry
	listener  *Listener
	registrar *Registrar
	marks     *marks
}

// setup is what a test may change.
type setup struct {
	ListenerConfig
	conn   *pgx.ConnConfig
	pool   Execer
	holder bool
}

// newFixture runs a listener until the test is over, and checks that it ends at once.
func newFixture(t *testing.T, dsn string, change func(*setup)) *fixture {
	t.Helper()
	f := &fixture{dsn: dsn, sink: make(sink, 1000), log: &lines{written: make(chan string, 1000)}, reg: prometheus.NewRegistry(), marks: new(marks)}
	logger := slog.New(slog.NewTextHandler(f.log, nil))
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	cfg := &setup{conn: conn, pool: pool, ListenerConfig: ListenerConfig{Sink: f.sink, Registerer: f.reg, Logger: logger}}
	if change != nil {
		change(cfg)
	}
	f.registrar = NewRegistrar(f.marks.mark, logger)
	if cfg.holder {
		cfg.Source = NewHolder(cfg.conn, cfg.pool, f.registrar, logger)
	} else {
		cfg.Source = NewPostgres(cfg.conn, cfg.pool, f.registrar, logger)
	}
	f.listener, err = NewListener(cfg.ListenerConfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done, registrar := make(chan error, 1), make(chan error, 1)
	go func() { done <- f.listener.Run(ctx) }()
	go func() { registrar <- f.registrar.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for _, ended := range []chan error{done, registrar} {
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Run returned %v, want nil", err)
				}
			case <-time.After(3 * time.Second):
				t.Error("Run has not ended 3 s after its context")
				<-ended
			}
		}
		if f.listener.Up() {
			t.Error("up after the end")
		}
	})
	return f
}

func (f *fixture) hears(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-f.sink:
		if got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("nothing heard, want %q; log:\n%s", want, &f.log.logs)
	}
}

func (f *fixture) logs(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line := <-f.log.written:
			if strings.Contains(line, want) {
				return
			}
		case <-deadline:
			t.Fatalf("%q was not logged:\n%s", want, &f.log.logs)
		}
	}
}

func (f *fixture) comesUp(t *testing.T) {
	t.Helper()
	f.hears(t, "resync")
	f.logs(t, "listening for notifications")
	if !f.listener.Up() {
		t.Error("not up")
	}
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func notify(t *testing.T, dsn, payload string) {
	t.Helper()
	pgtest.Psql(t, dsn, `select pg_notify('auditstream', '`+payload+`')`)
}

// feeds makes what install makes, as far as a session looks at it.
func feeds(t *testing.T, dsn string, class, buckets int) {
	t.Helper()
	pgtest.Psql(t, dsn, fmt.Sprintf(`create schema if not exists auditstream; create table if not exists auditstream.feeds (feed text primary key, class int, buckets int);
		insert into auditstream.feeds values ('audits', %d, %d) on conflict (feed) do update set class = excluded.class, buckets = excluded.buckets`, class, buckets))
}

// held are the locks that sessions hold, as "class:bucket bucket".
func held(t *testing.T, dsn string) string {
	t.Helper()
	return pgtest.Psql(t, dsn, `select coalesce(string_agg(x, ' ' order by x), '') from (select classid || ':' || string_agg(objid::text, ',' order by objid) x
		from pg_locks where locktype = 'advisory' and objsubid = 2 and database = (select oid from pg_database where datname = current_database()) group by classid) l`)
}

func TestListenerHearsRowsAndResyncs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.New(t), nil)
	f.comesUp(t)
	for _, payload := range []string{"!another-instance", "nonsense", "42", "*", strings.Repeat("9", 7999), "9223372036854775807", "*"} {
		notify(t, f.dsn, payload)
	}
	f.hears(t, "42")
	f.hears(t, "resync")
	f.hears(t, "9223372036854775807")
	f.hears(t, "resync")
}

func TestTerminatedListenerReconnectsAndResyncs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.New(t), nil)
	f.comesUp(t)
	for outage := 1; outage <= 2; outage++ {
		killed := pgtest.Psql(t, f.dsn, `select count(pg_terminate_backend(pid)) from pg_stat_activity
			where datname = current_database() and application_name = 'auditstream listener'`)
		if killed != "1" {
			t.Fatalf("%s listening sessions, want 1", killed)
		}
		f.comesUp(t)
		notify(t, f.dsn, "42")
		f.hears(t, "42")
		if got := f.log.count("listening connection lost"); got != outage {
			t.Errorf("outage %d: logged %d times, want once each:\n%s", outage, got, &f.log.logs)
		}
	}
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	proxy, proxied := pgtest.ProxyDSN(t, dsn)
	const interval, timeout = 200 * time.Millisecond, 500 * time.Millisecond
	f := newFixture(t, dsn, func(cfg *setup) {
		conn, err := pgx.ParseConfig(proxied)
		if err != nil {
			t.Fatal(err)
		}
		conn.ConnectTimeout = 500 * time.Millisecond
		cfg.conn, cfg.CanaryInterval, cfg.CanaryTimeout = conn, interval, timeout
	})
	f.comesUp(t)
	lost, silent := f.log.count("listening connection lost"), metric(t, f.reg, "auditstream_listener_failures_total", failSilent) // on a busy machine
	proxy.Pause()
	start := time.Now()
	f.logs(t, "listening connection lost")
	if got := time.Since(start); got > interval+timeout+2*time.Second { // the rest is for a busy machine
		t.Errorf("noticed after %v, want %v", got, interval+timeout)
	}
	if f.listener.Up() {
		t.Error("up while nothing comes through")
	}
	if got := metric(t, f.reg, "auditstream_listener_failures_total", failSilent) - silent; got != 1 {
		t.Errorf("%v silent connections, want 1", got)
	}
	notify(t, dsn, "41") // lost
	proxy.Resume()
	f.comesUp(t)
	notify(t, dsn, "42")
	f.hears(t, "42")
	if got := f.log.count("listening connection lost") - lost; got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, &f.log.logs)
	}
}

func TestListenerSurvivesIdleSessionTimeout(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, `do $$ begin execute format('alter database %I set idle_session_timeout = 200', current_database()); end $$`)
	f := newFixture(t, dsn, func(cfg *setup) { cfg.CanaryInterval = time.Hour })
	f.comesUp(t)
	pgtest.Psql(t, dsn, `select pg_sleep(1)`)
	notify(t, dsn, "42")
	f.hears(t, "42")
	if got := metric(t, f.reg, "auditstream_listener_connects_total"); got != 1 {
		t.Errorf("%v connects, want 1", got)
	}
}

func TestUnreachableServerIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	attempts, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
			attempts <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	f := newFixture(t, "postgres://nobody:hush-hush@"+server.Addr().String()+"/x?sslmode=disable", nil)
	for range 4 {
		select {
		case <-attempts:
		case <-time.After(patience):
			t.Fatal("no further attempt")
		}
	}
	if got := f.log.count("level="); got != 1 {
		t.Errorf("%d lines, want 1:\n%s", got, &f.log.logs)
	}
	if f.log.count("hush-hush") > 0 {
		t.Errorf("the password was logged:\n%s", &f.log.logs)
	}
}

// Run must not wait for a server that accepts and then says nothing; newFixture checks that it ends.
func TestRunEndsWhileConnecting(t *testing.T) {
	t.Parallel()
	for _, holder := range []bool{false, true} {
		proxy, proxied := pgtest.ProxyDSN(t, pgtest.New(t))
		proxy.Pause()
		newFixture(t, proxied, func(cfg *setup) { cfg.holder = holder })
	}
}

// The locks are the session's that listens: what is to be done on its connection interrupts the wait for a notification and loses
// none, and when the session is over, so are the locks.
func TestSessionDoesErrandsBetweenNotifications(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	f := newFixture(t, dsn, nil)
	f.comesUp(t)
	other := pgtest.Connect(t, dsn)
	const notifications = 300
	done := make(chan error, 1)
	go func() {
		for n := range notifications {
			if _, err := other.Exec(context.WithoutCancel(t.Context()), `select pg_notify($1, $2::int::text)`, Channel, n+1); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for b := range int32(200) {
		f.registrar.Want(in(b))
		time.Sleep(time.Millisecond)
	}
	for n := range notifications {
		f.hears(t, fmt.Sprint(n+1))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "all locks", func() bool { return f.registrar.Unheld() == 0 })
	if got := len(strings.Split(held(t, dsn), ",")); got != 200 {
		t.Errorf("%d locks, want 200", got)
	}
	pgtest.Psql(t, dsn, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'auditstream listener'`)
	f.comesUp(t)
	eventually(t, "all locks again", func() bool { return f.registrar.Unheld() == 0 && len(strings.Split(held(t, dsn), ",")) == 200 })
}

// An install may change what the triggers ask for, while sessions go on: what was held means nothing then.
func TestInstallMayChangeTheLocks(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	f := newFixture(t, dsn, nil)
	f.registrar.Want(in(70))
	f.registrar.Want(Beginning)
	f.comesUp(t)
	if got := held(t, dsn); got != "" || f.log.count("the triggers cannot be told") != 1 { // there is no install yet
		t.Errorf("held: %s, log:\n%s", got, &f.log.logs)
	}
	for _, step := range []struct {
		class, buckets int
		want           string
	}{{78, 4096, "78:70,4096"}, {78, 64, "78:6,64"}, {79, 64, "79:6,64"}, {79, 1024, "79:70,1024"}, {79, 1000, ""}, {79, 8192, ""}, {79, 0, ""}, {80, 1, "80:0,1"}} {
		feeds(t, dsn, step.class, step.buckets)
		notify(t, dsn, "*")
		eventually(t, fmt.Sprintf("the locks of class %d and %d buckets", step.class, step.buckets), func() bool { return held(t, dsn) == step.want })
	}
	pgtest.Psql(t, dsn, `drop schema auditstream cascade`)
	notify(t, dsn, "*")
	eventually(t, "no locks", func() bool { return held(t, dsn) == "" })
}

// An install keeps auditstream.feeds to itself for a moment, or for long.
func TestLockedFeedsCostTheSessionAlone(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	f := newFixture(t, dsn, func(cfg *setup) { cfg.CanaryTimeout = time.Second })
	f.registrar.Want(in(7))
	f.comesUp(t)
	eventually(t, "the lock", func() bool { return held(t, dsn) == "78:7" })
	installer := pgtest.Connect(t, dsn)
	if _, err := installer.Exec(t.Context(), `begin; lock table auditstream.feeds`); err != nil {
		t.Fatal(err)
	}
	f.logs(t, "listening connection lost")
	eventually(t, "no lock", func() bool { return held(t, dsn) == "" })
	if _, err := installer.Exec(t.Context(), `commit`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lock again", func() bool { return held(t, dsn) == "78:7" && f.listener.Up() })
}

// A flood of what nobody asked for neither ends the session nor keeps the locks from being taken.
func TestFloodOfNotifications(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	var rows atomic.Int64
	f := newFixture(t, dsn, func(cfg *setup) { cfg.Sink = countingSink{&rows} })
	eventually(t, "up", f.listener.Up)
	admin := pgtest.Connect(t, dsn)
	for n, payload := range []string{"g::text", "'*'", "'#1'", "rpad(g::text, 7999, 'x')", "rpad('!', 7999, g::text)"} {
		count := 50_000
		if n > 2 {
			count = 2000
		}
		if _, err := admin.Exec(t.Context(), fmt.Sprintf(`select pg_notify('auditstream', %s) from generate_series(1, %d) g`, payload, count)); err != nil {
			t.Fatal(err)
		}
		f.registrar.Want(in(int32(n)))
		eventually(t, "the lock", func() bool { return f.registrar.Announced(in(int32(n))) })
	}
	eventually(t, "all rows", func() bool { return rows.Load() == 50_000 })
	if got := metric(t, f.reg, "auditstream_listener_connects_total"); got != 1 {
		t.Errorf("%v connections, want that the first is kept; log:\n%s", got, &f.log.logs)
	}
}

func TestListenConfig(t *testing.T) {
	t.Parallel()
	from, err := pgx.ParseConfig("postgres://127.0.0.1/x")
	if err != nil {
		t.Fatal(err)
	}
	from.ConnectTimeout = time.Minute
	got := listenConfig(from, "auditstream listener")
	if got.ConnectTimeout != connectTimeout || got.RuntimeParams["application_name"] != "auditstream listener" {
		t.Errorf("connect timeout %v, application_name %q", got.ConnectTimeout, got.RuntimeParams["application_name"])
	}
	if from.ConnectTimeout != time.Minute || from.RuntimeParams["application_name"] != "" {
		t.Error("the caller's configuration was changed")
	}
	from.ConnectTimeout, from.RuntimeParams["application_name"] = time.Second, "mine"
	got = listenConfig(from, "auditstream listener")
	if got.ConnectTimeout != time.Second || got.RuntimeParams["application_name"] != "mine" {
		t.Errorf("connect timeout %v, application_name %q, want those that were set", got.ConnectTimeout, got.RuntimeParams["application_name"])
	}
}

type countingSink struct{ rows *atomic.Int64 }

func (s countingSink) Notify(store.Key) { s.rows.Add(1) }
func (s countingSink) Resync()          {}
