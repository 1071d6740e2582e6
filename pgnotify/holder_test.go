package pgnotify

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/pgtest"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestHolderHoldsTheLocks(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	f := newFixture(t, dsn, func(cfg *setup) { cfg.holder = true })
	f.registrar.Want(in(7))
	f.logs(t, "telling the triggers what is watched")
	eventually(t, "the lock", func() bool { return held(t, dsn) == "78:7" })
	for range 2 {
		pgtest.Psql(t, dsn, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'auditstream instance'`)
		f.logs(t, "cannot tell the triggers")
		f.logs(t, "telling the triggers what is watched")
		eventually(t, "the lock again", func() bool { return held(t, dsn) == "78:7" })
	}
}

// A connection on which nothing comes through any more is given up.
func TestHalfOpenHolderIsNoticed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	proxy, proxied := pgtest.ProxyDSN(t, dsn)
	f := newFixture(t, proxied, func(cfg *setup) {
		cfg.holder, cfg.CanaryInterval, cfg.CanaryTimeout = true, 100*time.Millisecond, time.Second
	})
	eventually(t, "up", f.listener.Up)
	proxy.Pause()
	eventually(t, "not up", func() bool { return !f.listener.Up() })
	proxy.DropAll()
	proxy.Resume()
	eventually(t, "up again", f.listener.Up)
}

// Through a transaction pooler no notification comes back: no lock is taken that somebody else would keep.
func TestHolderTakesNoLockUnproven(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	var late atomic.Bool
	late.Store(true)
	f := newFixture(t, dsn, func(cfg *setup) {
		pool := cfg.pool
		cfg.holder, cfg.MuteRetry = true, 100*time.Millisecond
		cfg.pool = execFunc(func(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
			if late.Load() {
				return pgconn.CommandTag{}, nil // and it never arrives
			}
			return pool.Exec(ctx, query, args...)
		})
	})
	f.registrar.Want(in(7))
	// One that is late is no pooler: it takes two to be said so.
	f.logs(t, "level=WARN")
	if f.log.count("level=ERROR") > 0 || f.listener.Up() || held(t, dsn) != "" {
		t.Errorf("up %v, held %s, log:\n%s", f.listener.Up(), held(t, dsn), &f.log.logs)
	}
	f.logs(t, "level=ERROR")
	late.Store(false)
	eventually(t, "the lock", func() bool { return held(t, dsn) == "78:7" })
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
func TestHolderListensNoMore(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	feeds(t, dsn, 78, 4096)
	var tap atomic.Pointer[tapped]
	var channel atomic.Value
	f := newFixture(t, dsn, func(cfg *setup) {
		cfg.holder, cfg.CanaryInterval = true, 50*time.Millisecond
		cfg.conn.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
			tap.Store(&tapped{Conn: conn})
			return tap.Load(), nil
		}
		pool := cfg.pool
		cfg.pool = execFunc(func(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
			channel.Store(args[0])
			return pool.Exec(ctx, query, args...)
		})
	})
	eventually(t, "up", f.listener.Up)
	_, before := tap.Load().seen()
	for _, name := range []string{channel.Load().(string), Channel} {
		pgtest.Psql(t, dsn, `select pg_notify('`+name+`', 'nobody listens')`)
	}
	eventually(t, "two canaries", func() bool { _, reads := tap.Load().seen(); return reads >= before+4 })
	if text, _ := tap.Load().seen(); strings.Contains(text, "nobody listens") {
		t.Error("the session listens")
	}
	if n := f.sink.drain(); len(n) != 1 {
		t.Errorf("told %v, want the resync of the connection alone", n)
	}
}
