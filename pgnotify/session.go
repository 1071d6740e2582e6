package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"auditstream/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// goodbyeTimeout bounds the end of a connection that is given up.
const goodbyeTimeout = time.Second

// session is the life of one listening connection: connect, LISTEN, hear, until it breaks or falls silent.
type session struct {
	l      *Listener
	ready  chan struct{}          // closed when LISTEN is in force
	sent   atomic.Pointer[Canary] // the one that is on its way
	heard  atomic.Uint64          // notifications of any kind
	proven time.Time              // when a canary last came back; belongs to watch
	stars  *ResyncLimiter
	// announcement is made only once a canary has come back: through a transaction pooler, where none does, locks would stay with
	// whoever gets the connection next.
	announcement announcement
	errands      errands
}

func newSession(l *Listener) *session {
	s := &session{l: l, ready: make(chan struct{}), stars: NewResyncLimiter(l.cfg.Sink.Resync)}
	s.announcement = announcement{registrar: l.cfg.Registrar, logger: l.cfg.Logger, timeout: l.cfg.CanaryTimeout, errands: &s.errands}
	return s
}

// run returns why the session ended. Listener.Run decides what follows.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.stars.Stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancel(s.watch(ctx))
	}()
	cancel(s.listen(ctx)) // the first cause wins
	<-watched
	return context.Cause(ctx)
}

// listen hears until the connection breaks or ctx is done. Not pgxlisten's way: the same session holds the locks by which
// writers see what is watched, so that the wait for a notification has to be interrupted.
func (s *session) listen(ctx context.Context) error {
	conn, err := connectIdle(ctx, s.l.cfg.Conn)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		s.announcement.end()
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
		defer cancel()
		_ = conn.Close(closeCtx) // the locks go with it
	}()
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{Channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.listening()
	for {
		n, err := s.errands.wait(ctx, conn)
		if err == nil && n != nil {
			err = s.hear(ctx, n, conn)
		}
		if err != nil {
			return err
		}
	}
}

// listening says that LISTEN is in force: whatever was committed before may have been missed.
func (s *session) listening() {
	s.l.metrics.Connects.Inc()
	s.l.cfg.Sink.Resync()
	close(s.ready)
}

// connectIdle opens a connection that idle_session_timeout, which counts a session that only listens as idle, does not end.
func connectIdle(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// A pooler would keep a SET for its next client, so set nothing unless it is needed.
	const keepIdle = `select set_config('idle_session_timeout', '0', false) where current_setting('idle_session_timeout', true) <> '0'`
	if _, err := conn.Exec(ctx, keepIdle); err != nil {
		_ = conn.Close(ctx) // the first error is the one to report
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	return conn, nil
}

// hear does what a notification asks for. The error is the session's end.
func (s *session) hear(ctx context.Context, n *pgconn.Notification, conn *pgx.Conn) (err error) {
	s.heard.Add(1)
	kind := NotifyIgnored
	switch key, ok := store.ParseKey(n.Payload); {
	case ok:
		kind = NotifyRow
		s.l.cfg.Sink.Notify(key)
	case IsResync(n.Payload):
		kind = NotifyResync
		s.stars.Request()
		if s.announcement.told && time.Since(s.announcement.looked) >= resyncInterval { // it may be an install's
			err = s.announcement.look(ctx, conn)
		}
	case strings.HasPrefix(n.Payload, CanaryPrefix):
		kind = NotifyCanary
		if c := s.sent.Load(); c != nil && n.Payload == c.Payload { // not another instance's
			err = s.announcement.look(ctx, conn)
			c.CameBack()
		}
	}
	s.l.metrics.Notifications.WithLabelValues(kind).Inc()
	return err
}

// watch sends a canary through the pool every interval and returns ErrSilent when one does not come back. A canary that
// cannot be sent proves nothing about the listening connection, so it is kept; but when no proof has come for a while,
// nothing can be said to be up.
func (s *session) watch(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil
	case <-time.After(s.l.cfg.Conn.ConnectTimeout * time.Duration(2+len(s.l.cfg.Conn.Fallbacks))):
		return errors.New("connecting and LISTEN took too long")
	}
	for {
		if err := s.canary(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.l.cfg.CanaryInterval):
		}
	}
}

// canary sends one and waits for it. One that cannot be sent proves nothing about the listening connection, which is kept.
func (s *session) canary(ctx context.Context) error {
	c := NewCanary()
	s.sent.Store(c)
	sendCtx, cancel := context.WithTimeout(ctx, s.l.cfg.CanaryTimeout)
	defer cancel()
	start := time.Now()
	if _, err := s.l.cfg.Pool.Exec(sendCtx, "select pg_catalog.pg_notify($1, $2)", Channel, c.Payload); err != nil {
		s.l.cfg.Logger.DebugContext(ctx, "canary not sent", "error", err)
		if time.Since(s.proven) > s.l.proofLasts() {
			s.l.setUp(false)
		}
		return nil
	}
	came, err := c.Await(ctx, start, s.l.cfg.CanaryTimeout, s.heard.Load)
	if came {
		s.l.metrics.Canary.Observe(time.Since(start).Seconds())
		s.proven = time.Now()
		s.l.setUp(true)
	}
	return err
}

func (s *session) failure(err error) string {
	select {
	case <-s.ready:
	default:
		return FailConnect
	}
	if errors.Is(err, ErrSilent) {
		return FailSilent
	}
	return FailLost
}

// listenConfig makes a dead peer noticed without a query: the watchdog is faster, but the kernel also frees what a network
// partition leaves behind.
func listenConfig(from *pgx.ConnConfig, name string) *pgx.ConnConfig {
	cfg := from.Copy()
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = name
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > connectTimeout {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.DialFunc = (&net.Dialer{
		Timeout:         cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
	return cfg
}
