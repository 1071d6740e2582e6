package pgnotify

import (
	"context"
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
	cfg := InstanceConfig{Conn: conn, Pool: pool, Registrar: told, Interval: patience, Retry: 10 * time.Millisecond}
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
	var listens bool
	err = admin.QueryRow(t.Context(), `select query ~* '^listen' from pg_stat_activity where pid = $1`, holder).Scan(&listens)
	if err != nil || listens {
		t.Errorf("the session listens: %v, %v", listens, err)
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
