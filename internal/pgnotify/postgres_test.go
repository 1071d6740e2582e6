package pgnotify

import (
	"auditstream/internal/store"
	"auditstream/internal/testkit"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// patience is the longest wait for an event that must happen. Only a failing test waits so long.
const patience = 30 * time.Second

type execFunc func(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)

func (f execFunc) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return f(ctx, sql, args...)
}

// lines is a log whose messages a test can wait for.
type lines struct {
	testkit.Log
	written chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.written <- string(p)
	return l.Log.Write(p)
}

// fixture is a listener that runs against a database of the test's own.
type fixture struct {
	dsn      string
	sink     sink
	log      *lines
	reg      *prometheus.Registry
	listener *Listener
}

// setup is what a test may change.
type setup struct {
	ListenerConfig
	conn *pgx.ConnConfig
	pool Pool
}

// newSetup connects to a database of the test's own.
func newSetup(t *testing.T, dsn string) *setup {
	t.Helper()
	conn, err := pgx.ParseConfig(dsn)
	testkit.NoError(t, err)
	pool, err := pgxpool.New(t.Context(), dsn)
	testkit.NoError(t, err)
	t.Cleanup(pool.Close)
	return &setup{conn: conn, pool: pool}
}

// runAll runs each function until the test is over, and checks that it then ends at once.
func runAll(t *testing.T, runs ...func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, len(runs))
	for _, run := range runs {
		go func() { done <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		late := time.AfterFunc(3*time.Second, func() { t.Error("Run has not ended 3 s after its context") })
		defer late.Stop()
		for range runs {
			if err := <-done; err != nil {
				t.Errorf("Run returned %v, want nil", err)
			}
		}
	})
}

func newFixture(t *testing.T, dsn string, change func(*setup)) *fixture {
	t.Helper()
	f := &fixture{dsn: dsn, sink: make(sink, 1000), log: &lines{written: make(chan string, 1000)}, reg: prometheus.NewRegistry()}
	cfg := newSetup(t, dsn)
	cfg.Sink, cfg.Registerer, cfg.Logger = f.sink, f.reg, slog.New(slog.NewTextHandler(f.log, nil))
	if change != nil {
		change(cfg)
	}
	cfg.Source = NewPostgres(cfg.conn, cfg.pool)
	var err error
	f.listener, err = NewListener(cfg.ListenerConfig)
	testkit.NoError(t, err)
	t.Cleanup(func() {
		if f.listener.Up() {
			t.Error("up after the end")
		}
	})
	runAll(t, f.listener.Run)
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
		t.Fatalf("nothing heard, want %q; log:\n%s", want, f.log)
	}
}

// wait returns when a line contains text.
func (l *lines) wait(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line := <-l.written:
			if strings.Contains(line, want) {
				return
			}
		case <-deadline:
			t.Fatalf("%q was not logged:\n%s", want, &l.Log)
		}
	}
}

func (f *fixture) comesUp(t *testing.T) {
	t.Helper()
	f.hears(t, "resync")
	f.log.wait(t, "listening for notifications")
	if !f.listener.Up() {
		t.Error("not up")
	}
}

func send(t *testing.T, dsn, payload string) {
	t.Helper()
	pgtest.Psql(t, dsn, `select pg_notify('auditstream', '`+payload+`')`)
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
		for _, payload := range []string{"!another-instance", "nonsense", "42", "*", strings.Repeat("9", 7999), "9223372036854775807", "*"} {
			send(t, f.dsn, payload)
		}
		for _, want := range []string{"42", "resync", "9223372036854775807", "resync"} {
			f.hears(t, want)
		}
		if got := f.log.Count("listening connection lost"); got != outage {
			t.Errorf("outage %d: logged %d times, want once each:\n%s", outage, got, f.log)
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
		testkit.NoError(t, err)
		conn.ConnectTimeout = 500 * time.Millisecond
		cfg.conn, cfg.CanaryInterval, cfg.CanaryTimeout = conn, interval, timeout
	})
	f.comesUp(t)
	lost, silent := f.log.Count("listening connection lost"), testkit.Metric(t, f.reg, "auditstream_listener_failures_total", failSilent) // on a busy machine
	proxy.Pause()
	start := time.Now()
	f.log.wait(t, "listening connection lost")
	if got := time.Since(start); got > interval+timeout+2*time.Second { // the rest is for a busy machine
		t.Errorf("noticed after %v, want %v", got, interval+timeout)
	}
	if f.listener.Up() {
		t.Error("up while nothing comes through")
	}
	if got := testkit.Metric(t, f.reg, "auditstream_listener_failures_total", failSilent) - silent; got != 1 {
		t.Errorf("%v silent connections, want 1", got)
	}
	send(t, dsn, "41") // lost
	proxy.Resume()
	f.comesUp(t)
	send(t, dsn, "42")
	f.hears(t, "42")
	if got := f.log.Count("listening connection lost") - lost; got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, f.log)
	}
}

func TestListenerSurvivesIdleSessionTimeout(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, `do $$ begin execute format('alter database %I set idle_session_timeout = 200', current_database()); end $$`)
	f := newFixture(t, dsn, func(cfg *setup) { cfg.CanaryInterval = time.Hour })
	f.comesUp(t)
	pgtest.Psql(t, dsn, `select pg_sleep(1)`)
	send(t, dsn, "42")
	f.hears(t, "42")
	if got := testkit.Metric(t, f.reg, "auditstream_listener_connects_total"); got != 1 {
		t.Errorf("%v connects, want 1", got)
	}
}

func TestUnreachableServerIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
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
	if got := f.log.Count("level="); got != 1 {
		t.Errorf("%d lines, want 1:\n%s", got, f.log)
	}
	if f.log.Count("hush-hush") > 0 {
		t.Errorf("the password was logged:\n%s", f.log)
	}
}

// Run must not wait for a server that accepts and then says nothing; runAll checks that it ends.
func TestRunEndsWhileConnecting(t *testing.T) {
	t.Parallel()
	proxy, proxied := pgtest.ProxyDSN(t, pgtest.New(t))
	proxy.Pause()
	newFixture(t, proxied, nil)
	newHolding(t, proxied, nil)
}

// A flood of foreign notifications breaks no connection and loses nothing.
func TestFloodOfNotifications(t *testing.T) {
	t.Parallel()
	var rows atomic.Int64
	f := newFixture(t, pgtest.New(t), func(cfg *setup) { cfg.Sink, cfg.CanaryTimeout = countingSink{&rows}, patience })
	testkit.Eventually(t, "up", f.listener.Up)
	admin := pgtest.Connect(t, f.dsn)
	for _, flood := range []struct {
		payload string
		count   int
	}{{"g::text", 10_000}, {"'*'||g", 10_000}, {"'#'||g", 10_000}, {"rpad(g::text, 7999, 'x')", 500}, {"rpad('!'||g, 7999, 'x')", 500}} {
		if _, err := admin.Exec(t.Context(), fmt.Sprintf(`select pg_notify('auditstream', %s) from generate_series(1, %d) g`, flood.payload, flood.count)); err != nil {
			t.Fatal(err)
		}
	}
	send(t, f.dsn, "7")
	testkit.Eventually(t, "all rows", func() bool { return rows.Load() == 10_001 })
	if got := testkit.Metric(t, f.reg, "auditstream_listener_connects_total"); got != 1 {
		t.Errorf("%v connections, want that the first is kept; log:\n%s", got, f.log)
	}
}

func TestListenConfig(t *testing.T) {
	t.Parallel()
	from, err := pgx.ParseConfig("postgres://127.0.0.1/x")
	testkit.NoError(t, err)
	from.ConnectTimeout = time.Minute
	var dialed string
	from.DialFunc = func(_ context.Context, network, address string) (net.Conn, error) {
		dialed = network + " " + address
		return nil, errDatabase
	}
	got := listenConfig(from, "auditstream listener")
	if got.ConnectTimeout != connectTimeout || got.RuntimeParams["application_name"] != "auditstream listener" {
		t.Errorf("connect timeout %v, application_name %q", got.ConnectTimeout, got.RuntimeParams["application_name"])
	}
	if from.ConnectTimeout != time.Minute || from.RuntimeParams["application_name"] != "" {
		t.Error("the caller's configuration was changed")
	}
	if _, err := pgx.ConnectConfig(t.Context(), got); !errors.Is(err, errDatabase) || dialed != "tcp 127.0.0.1:5432" {
		t.Errorf("connects to %q: %v; want that the caller's DialFunc does, which may be a cloud's connector", dialed, err)
	}
	from.ConnectTimeout, from.RuntimeParams["application_name"] = time.Second, "mine"
	got = listenConfig(from, "auditstream listener")
	if got.ConnectTimeout != time.Second || got.RuntimeParams["application_name"] != "mine" {
		t.Errorf("connect timeout %v, application_name %q, want those that were set", got.ConnectTimeout, got.RuntimeParams["application_name"])
	}
}

type countingSink struct{ rows *atomic.Int64 }

func (s countingSink) Notify(row string) bool {
	_, ok := store.ParseKey(row)
	if ok {
		s.rows.Add(1)
	}
	return ok
}
func (s countingSink) Resync() {}

// otherPool is a Pool some of whose methods are replaced.
type otherPool struct {
	Pool
	exec execFunc                // nil: the Pool's
	row  func(dest ...any) error // nil: the Pool's
}

func (p otherPool) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	if p.exec == nil {
		return p.Pool.Exec(ctx, query, args...)
	}
	return p.exec(ctx, query, args...)
}

func (p otherPool) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	if p.row == nil {
		return p.Pool.QueryRow(ctx, query, args...)
	}
	return rowFunc(p.row)
}

type rowFunc func(dest ...any) error

func (f rowFunc) Scan(dest ...any) error { return f(dest...) }
