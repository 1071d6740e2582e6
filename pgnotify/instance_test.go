package pgnotify

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/pgtest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// registrar hands on the numbers that it is told.
type registrar chan int64

func (r registrar) Listening(instance int64) { r <- instance }

func (r registrar) next(t *testing.T) int64 {
	t.Helper()
	select {
	case n := <-r:
		return n
	case <-time.After(patience):
		t.Fatal("the registrar was told nothing")
		return 0
	}
}

func runInstance(t *testing.T, dsn string, change func(*InstanceConfig)) (*Instance, registrar) {
	t.Helper()
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	told := make(registrar, 100)
	cfg := InstanceConfig{Conn: conn, Pool: pool, OldRegistrar: told, Interval: patience, Retry: 10 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	i, err := NewInstance(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	return i, told
}

// The number is that of a lock which the database shows, and a session that was lost is replaced by one with another.
func TestInstanceHoldsALock(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	i, told := runInstance(t, dsn, func(cfg *InstanceConfig) { cfg.Interval = time.Hour }) // a loss is noticed without a look
	admin, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.WithoutCancel(t.Context()))
	pid := func(number int64) (pid int32) {
		t.Helper()
		err := admin.QueryRow(t.Context(), `select pid from pg_locks where locktype = 'advisory' and objsubid = 1 and granted
			and (classid::bigint << 32) | objid::bigint = $1`, number).Scan(&pid)
		if err != nil {
			t.Fatalf("no lock %d: %v", number, err)
		}
		return pid
	}
	first := told.next(t)
	holder := pid(first)
	if !i.Held() {
		t.Error("not held")
	}
	if _, err := admin.Exec(t.Context(), `select pg_terminate_backend($1)`, holder); err != nil {
		t.Fatal(err)
	}
	if lost := told.next(t); lost != 0 {
		t.Errorf("told %d, want 0", lost)
	}
	if second := told.next(t); second == first || pid(second) == holder {
		t.Errorf("the lock after the loss is %d again", second)
	}
}

// Through a transaction pooler no notification comes back: no lock is taken that somebody else would keep.
func TestInstanceTakesNoLockUnproven(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{}, 100)
	i, told := runInstance(t, pgtest.New(t), func(cfg *InstanceConfig) {
		cfg.Interval = 20 * time.Millisecond
		cfg.Pool = execFunc(func(context.Context, string, ...any) (pgconn.CommandTag, error) {
			sent <- struct{}{}
			return pgconn.CommandTag{}, nil // and it never arrives
		})
	})
	for range 3 {
		select {
		case <-sent:
		case <-time.After(patience):
			t.Fatal("not tried again")
		}
	}
	if i.Held() || len(told) > 0 {
		t.Error("a lock is held")
	}
}

// tapped keeps what is read from a connection.
type tapped struct {
	net.Conn
	mu   sync.Mutex
	text []byte
	n    int // reads
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p[:n]...)
	c.n++
	return n, err
}

func (c *tapped) seen() (text string, reads int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text), c.n
}

// Once it is proven the session does not listen: it would cost the writers. What other sessions listen to PostgreSQL does not
// tell, so it is what arrives on the connection.
func TestInstanceListensNoMore(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	admin, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.WithoutCancel(t.Context()))
	taps, channels := make(chan *tapped, 100), make(chan string, 100)
	_, told := runInstance(t, dsn, func(cfg *InstanceConfig) {
		cfg.Conn.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
			tap := &tapped{Conn: conn}
			taps <- tap
			return tap, nil
		}
		cfg.Interval = time.Second
		pool := cfg.Pool
		cfg.Pool = execFunc(func(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
			channels <- args[0].(string)
			return pool.Exec(ctx, query, args...)
		})
	})
	if told.next(t) == 0 {
		t.Fatal("the lock was lost at once")
	}
	var tap *tapped
	for len(taps) > 0 {
		tap = <-taps // the last is the one that was proven
	}
	var channel string
	for len(channels) > 0 {
		channel = <-channels
	}
	_, before := tap.seen()
	if _, err := admin.Exec(t.Context(), "select pg_notify($1, 'nobody listens')", channel); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(patience); ; { // a notification comes before the answer to what is asked after it
		text, reads := tap.seen()
		if strings.Contains(text, "nobody listens") {
			t.Fatal("the session listens")
		}
		if reads >= before+2 {
			return
		}
		select {
		case <-deadline:
			t.Fatal("the session is not looked at")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
