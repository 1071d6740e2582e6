package pgnotify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
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
	// Registrar is given the session. Required.
	Registrar *Registrar
	// Interval between looks whether the session lives, and what the triggers ask for; default 4 s. Each may take half of it.
	Interval time.Duration
	// Retry is the time between attempts where a pooler is in the way; default 1 min.
	Retry time.Duration
	// Logger's default discards.
	Logger *slog.Logger
}

// Instance is the session in which a Registrar holds its locks, for a hub whose hints come from elsewhere than a Listener of its
// own. Its session does not LISTEN, so it costs the writers nothing.
type Instance struct {
	cfg  InstanceConfig
	held atomic.Bool
}

// NewInstance returns an Instance that does nothing until Run.
func NewInstance(cfg InstanceConfig) (*Instance, error) {
	if cfg.Conn == nil || cfg.Pool == nil || cfg.Registrar == nil {
		return nil, errors.New("pgnotify: InstanceConfig.Conn, Pool and Registrar are required")
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

// Held reports whether there is such a session, on a connection that has shown that it keeps its session. Safe for concurrent use.
func (i *Instance) Held() bool { return i.held.Load() }

// Run keeps it until ctx is done, and returns nil. What cannot be had is tried again for ever. It must run exactly once.
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

// session is the life of one connection. It returns why it ended, and whether it was proven.
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
		_ = conn.Close(closeCtx) // the locks go with it
	}()
	if err := i.prove(dialCtx, conn); err != nil {
		return false, err
	}
	var errands errands
	a := announcement{registrar: i.cfg.Registrar, logger: i.cfg.Logger, timeout: i.cfg.Interval / 2, errands: &errands}
	defer a.end()
	i.held.Store(true)
	defer i.held.Store(false)
	i.cfg.Logger.Info("telling the triggers what is watched")
	for {
		if time.Since(a.looked) >= i.cfg.Interval { // which a connection that is silently dead does not answer
			if err := a.look(ctx, conn); err != nil {
				return true, err
			}
		}
		waitCtx, cancel := context.WithTimeout(ctx, time.Until(a.looked.Add(i.cfg.Interval)))
		_, err := errands.wait(waitCtx, conn) // there is none: a connection that is lost ends the wait at once
		expired := waitCtx.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return true, nil
		}
		if err != nil && (!expired || conn.IsClosed()) {
			return true, fmt.Errorf("hold the locks: %w", err)
		}
	}
}

// prove has a notification from the pool come back: through a transaction pooler, where none does, locks would stay with
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
