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

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// patience bounds waits for what must happen; it only ends tests that have failed.
const patience = 30 * time.Second

// sink tells what a listener told it, as texts: "resync" or an id.
type sink chan string

func (s sink) Notify(id int64) { s <- fmt.Sprint(id) }
func (s sink) Resync()         { s <- "resync" }

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
	dsn      string
	sink     sink
	log      *lines
	reg      *prometheus.Registry
	listener *Listener
}

// newFixture runs a listener until the test is over, and checks that it ends at once.
func newFixture(t *testing.T, dsn string, change func(*ListenerConfig)) *fixture {
	t.Helper()
	f := &fixture{dsn: dsn, sink: make(sink, 1000), log: &lines{written: make(chan string, 1000)}, reg: prometheus.NewRegistry()}
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	cfg := ListenerConfig{Conn: conn, Pool: pool, Sink: f.sink, Registerer: f.reg, Logger: slog.New(slog.NewTextHandler(f.log, nil))}
	if change != nil {
		change(&cfg)
	}
	f.listener, err = NewListener(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f.listener.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run returned %v, want nil", err)
			}
		case <-time.After(3 * time.Second):
			t.Error("Run has not ended 3 s after its context")
			<-done
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

func notify(t *testing.T, dsn, payload string) {
	t.Helper()
	pgtest.Psql(t, dsn, `select pg_notify('auditstream', '`+payload+`')`)
}

func TestListenerHearsRowsAndResyncs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.New(t), nil)
	f.comesUp(t)
	for _, payload := range []string{"!another-instance", "nonsense", "0", "-3", "9223372036854775808", "42", "*", "9223372036854775807", "*"} {
		notify(t, f.dsn, payload)
	}
	f.hears(t, "42")
	f.hears(t, "resync")
	f.hears(t, "9223372036854775807")
	f.hears(t, "resync") // now all before it is counted
	for kind, want := range map[string]float64{"row": 2, "ignored": 4} {
		if got := metric(t, f.reg, "auditstream_notifications_total", kind); got != want {
			t.Errorf("%v notifications of kind %s, want %v", got, kind, want)
		}
	}
	if got := metric(t, f.reg, "auditstream_listener_up"); got != 1 {
		t.Errorf("auditstream_listener_up %v, want 1", got)
	}
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
	if got := metric(t, f.reg, "auditstream_listener_failures_total", FailLost); got != 2 {
		t.Errorf("%v lost connections, want 2", got)
	}
	if got := metric(t, f.reg, "auditstream_listener_connects_total"); got != 3 {
		t.Errorf("%v connects, want 3", got)
	}
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	proxy, proxied := pgtest.ProxyDSN(t, dsn)
	const interval, timeout = 200 * time.Millisecond, 500 * time.Millisecond
	f := newFixture(t, dsn, func(cfg *ListenerConfig) {
		conn, err := pgx.ParseConfig(proxied)
		if err != nil {
			t.Fatal(err)
		}
		conn.ConnectTimeout = 500 * time.Millisecond
		cfg.Conn, cfg.CanaryInterval, cfg.CanaryTimeout = conn, interval, timeout
	})
	f.comesUp(t)
	lost, silent := f.log.count("listening connection lost"), metric(t, f.reg, "auditstream_listener_failures_total", FailSilent) // on a busy machine
	proxy.Pause()
	start := time.Now()
	f.logs(t, "listening connection lost")
	if got := time.Since(start); got > interval+timeout+2*time.Second { // the rest is for a busy machine
		t.Errorf("noticed after %v, want %v", got, interval+timeout)
	}
	if f.listener.Up() {
		t.Error("up while nothing comes through")
	}
	if got := metric(t, f.reg, "auditstream_listener_failures_total", FailSilent) - silent; got != 1 {
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

// A transaction pooler accepts LISTEN and delivers nothing. Canaries of other instances and forged ones prove nothing.
func TestMuteConnectionIsSaidToBeUnusableOnce(t *testing.T) {
	t.Parallel()
	const retry = 1500 * time.Millisecond
	dsn := pgtest.New(t)
	f := newFixture(t, dsn, func(cfg *ListenerConfig) {
		pool := cfg.Pool
		cfg.CanaryInterval, cfg.CanaryTimeout, cfg.PollingRetry = 10*time.Millisecond, 100*time.Millisecond, retry
		cfg.Pool = execFunc(func(ctx context.Context, sql string, _ ...any) (pgconn.CommandTag, error) {
			return pool.Exec(ctx, sql, Channel, "!forged")
		})
	})
	f.hears(t, "resync")
	f.hears(t, "resync")
	f.logs(t, "LISTEN does not work on this connection")
	start := time.Now()
	f.hears(t, "resync") // the third session
	if got := time.Since(start); got < retry*8/10 {
		t.Errorf("tried again after %v, want 90 %% of %v at least", got, retry)
	}
	f.hears(t, "resync")
	if got := f.log.count("LISTEN does not work"); got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, &f.log.logs)
	}
	if f.listener.Up() {
		t.Error("up, though no canary came back")
	}
}

// Found by the chaos test on a busy machine: two canaries that were late in a row, after a pause of PostgreSQL, were taken for a
// transaction pooler, and nothing listened for a minute.
func TestPauseIsNoPooler(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	var late atomic.Bool
	f := newFixture(t, dsn, func(cfg *ListenerConfig) {
		pool := cfg.Pool
		cfg.CanaryInterval, cfg.CanaryTimeout, cfg.PollingRetry = 10*time.Millisecond, 100*time.Millisecond, time.Hour
		cfg.Pool = execFunc(func(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
			if late.Load() {
				return pgconn.CommandTag{}, nil // it is on its way
			}
			return pool.Exec(ctx, sql, args...)
		})
	})
	f.comesUp(t)
	late.Store(true)
	f.logs(t, "listening connection lost")
	for range muteSessions + 1 {
		f.hears(t, "resync")
	}
	late.Store(false)
	f.logs(t, "listening for notifications")
	if got := f.log.count("LISTEN does not work"); got != 0 {
		t.Errorf("a pause is said to be unusable:\n%s", &f.log.logs)
	}
}

func TestListenerSurvivesIdleSessionTimeout(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, `do $$ begin execute format('alter database %I set idle_session_timeout = 200', current_database()); end $$`)
	f := newFixture(t, dsn, func(cfg *ListenerConfig) { cfg.CanaryInterval = time.Hour })
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
	dsn := pgtest.New(t)
	proxy, proxied := pgtest.ProxyDSN(t, dsn)
	proxy.Pause()
	newFixture(t, proxied, nil)
}
