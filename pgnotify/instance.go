package pgnotify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// InstanceConfig configures an Instance. Zero means the default.
type InstanceConfig struct {
	// Conn says where to hold the lock: a direct or session-pooled connection to the primary. Required; made by
	// pgx.ParseConfig.
	Conn *pgx.ConnConfig
	// Pool sends the one notification that shows that Conn keeps its session. Required.
	Pool Execer
	// OldRegistrar is told the instance's number, and 0 when the lock is lost. Required.
	OldRegistrar OldRegistrar
	// Interval between looks whether the session lives; default 4 s. Each may take half of it.
	Interval time.Duration
	// Retry is the time between attempts where a pooler is in the way; default 1 min.
	Retry time.Duration
	// Logger's default discards.
	Logger *slog.Logger
}

// Instance holds the advisory lock under which a hub registers what it watches, for a hub whose hints come from elsewhere
// than a Listener of its own: the triggers ring for what is registered, and another instance removes what is registered under
// a lock that nobody holds. Its session does not LISTEN, so it costs the writers nothing.
type Instance struct {
	cfg  InstanceConfig
	held atomic.Bool
}

// NewInstance returns an Instance that does nothing until Run.
func NewInstance(cfg InstanceConfig) (*Instance, error) {
	if cfg.Conn == nil || cfg.Pool == nil || cfg.OldRegistrar == nil {
		return nil, errors.New("pgnotify: InstanceConfig.Conn, Pool and OldRegistrar are required")
	}
	if cfg.Interval < 0 || cfg.Retry < 0 {
		return nil, errors.New("pgnotify: InstanceConfig's durations must not be negative")
	}
	if cfg.Interval == 0 {
		cfg.Interval = 4 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Conn = listenConfig(cfg.Conn, "auditstream instance")
	return &Instance{cfg: cfg}, nil
}

// Held reports whether the lock is held, on a connection that has shown that it keeps its session. Safe for concurrent use.
func (i *Instance) Held() bool { return i.held.Load() }

// Run holds the lock until ctx is done, and returns nil. What cannot be had is tried again for ever. It must run exactly once.
func (i *Instance) Run(ctx context.Context) error {
	var delays Backoff
	logged := false
	for {
		held, err := i.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if held {
			delays, logged = Backoff{}, false
		}
		delay := delays.Next()
		if errors.Is(err, ErrSilent) {
			delay = i.cfg.Retry - mathrand.N(i.cfg.Retry/10+1)
		}
		if !logged {
			logged = true
			i.cfg.Logger.Warn("cannot tell the triggers what is watched, trying on; unless they always ring, the safety net finds changes. DATABASE_LISTEN_URL must be a direct connection to the primary",
				"error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// session is the life of one connection. It returns why it ended, and whether it had the lock.
func (i *Instance) session(ctx context.Context) (held bool, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, i.cfg.Conn.ConnectTimeout*time.Duration(2+len(i.cfg.Conn.Fallbacks)))
	defer cancel()
	conn, err := connectIdle(dialCtx, i.cfg.Conn)
	if err != nil {
		return false, err
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
		defer cancel()
		_ = conn.Close(closeCtx) // the lock goes with it
	}()
	if err := i.prove(dialCtx, conn); err != nil {
		return false, err
	}
	number := 1 + mathrand.Int64N(math.MaxInt64)
	if _, err := conn.Exec(dialCtx, "select pg_catalog.pg_advisory_lock_shared($1)", number); err != nil {
		return false, fmt.Errorf("lock: %w", err)
	}
	i.held.Store(true)
	i.cfg.Logger.Info("telling the triggers what is watched")
	i.cfg.OldRegistrar.Listening(number)
	defer func() {
		i.held.Store(false)
		i.cfg.OldRegistrar.Listening(0)
	}()
	for {
		// There is none to wait for: a connection that is lost ends the wait at once.
		waitCtx, cancel := context.WithTimeout(ctx, i.cfg.Interval)
		_, err := conn.WaitForNotification(waitCtx)
		if waitCtx.Err() != nil {
			cancel()
			waitCtx, cancel = context.WithTimeout(ctx, i.cfg.Interval/2)
			err = conn.Ping(waitCtx) // nor does one that is silently dead end it
		}
		cancel()
		if ctx.Err() != nil {
			return true, nil
		}
		if err != nil {
			return true, fmt.Errorf("hold the lock: %w", err)
		}
	}
}

// prove has a notification from the pool come back: through a transaction pooler, where none does, the lock would stay with
// whoever gets the connection next. It listens for that long alone.
func (i *Instance) prove(ctx context.Context, conn *pgx.Conn) error {
	channel := pgx.Identifier{"auditstream_instance_" + strings.ToLower(rand.Text())}
	if _, err := conn.Exec(ctx, "listen "+channel.Sanitize()); err != nil {
		return fmt.Errorf("listen once: %w", err)
	}
	if _, err := i.cfg.Pool.Exec(ctx, "select pg_catalog.pg_notify($1, '')", channel[0]); err != nil {
		return fmt.Errorf("notify once: %w", err)
	}
	waitCtx, cancel := context.WithTimeout(ctx, i.cfg.Interval/2)
	defer cancel()
	_, err := conn.WaitForNotification(waitCtx)
	if waitCtx.Err() != nil && ctx.Err() == nil {
		return silentAfter(i.cfg.Interval / 2)
	}
	if err != nil {
		return fmt.Errorf("wait for a notification: %w", err)
	}
	if _, err := conn.Exec(ctx, "unlisten "+channel.Sanitize()); err != nil {
		return fmt.Errorf("unlisten: %w", err)
	}
	return nil
}
