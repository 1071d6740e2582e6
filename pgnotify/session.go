package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"
)

// session is the life of one listening connection: connect, LISTEN, hear, until it breaks or falls silent.
type session struct {
	l      *Listener
	ready  chan struct{}          // closed when LISTEN is in force
	sent   atomic.Pointer[Canary] // the one that is on its way
	heard  atomic.Uint64          // notifications of any kind
	proven time.Time              // when a canary last came back; belongs to watch
	stars  *ResyncLimiter
	// instance is 0 until a canary has come back: through a transaction pooler, where none does, the lock that proves that
	// the instance lives would stay with whoever gets the connection next. Belongs to the goroutine that hears.
	instance int64
}

func newSession(l *Listener) *session {
	return &session{l: l, ready: make(chan struct{}), stars: NewResyncLimiter(l.cfg.Sink.Resync)}
}

// run returns why the session ended. pgxlisten would reconnect by itself, but after a constant delay; the first error
// ends it here instead, and Listener.Run decides what follows.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.stars.Stop()
	listener := &pgxlisten.Listener{
		Connect:        s.connect,
		LogError:       func(_ context.Context, err error) { cancel(err) }, // the first cause wins
		ReconnectDelay: time.Hour,                                          // never reached: ctx is done by then
	}
	listener.Handle(Channel, s)

	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancel(s.watch(ctx))
	}()
	_ = listener.Listen(ctx) // always ctx's error; the cause says more
	<-watched
	return context.Cause(ctx)
}

func (s *session) connect(ctx context.Context) (*pgx.Conn, error) {
	return connectIdle(ctx, s.l.cfg.Conn)
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

// HandleBacklog is called by pgxlisten when LISTEN is in force: whatever was committed before may have been missed.
func (s *session) HandleBacklog(context.Context, string, *pgx.Conn) error {
	s.l.metrics.Connects.Inc()
	s.l.cfg.Sink.Resync()
	close(s.ready)
	return nil
}

// HandleNotification is called by pgxlisten for each notification. It does not block.
func (s *session) HandleNotification(ctx context.Context, n *pgconn.Notification, conn *pgx.Conn) error {
	s.heard.Add(1)
	kind := NotifyIgnored
	switch id, ok := ParseID(n.Payload); {
	case ok:
		kind = NotifyRow
		s.l.cfg.Sink.Notify(id)
	case n.Payload == PayloadResync:
		kind = NotifyResync
		s.stars.Request()
	case strings.HasPrefix(n.Payload, CanaryPrefix):
		kind = NotifyCanary
		if c := s.sent.Load(); c != nil && n.Payload == c.Payload { // not another instance's
			s.announce(ctx, conn)
			c.CameBack()
		}
	}
	s.l.metrics.Notifications.WithLabelValues(kind).Inc()
	return nil
}

// announce takes the lock that shows that this session lives, and tells the sink, once in a session.
func (s *session) announce(ctx context.Context, conn *pgx.Conn) {
	registrar, ok := s.l.cfg.Sink.(OldRegistrar)
	if !ok || s.instance != 0 || conn == nil {
		return
	}
	instance := 1 + mathrand.Int64N(math.MaxInt64)
	ctx, cancel := context.WithTimeout(ctx, s.l.cfg.CanaryTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "select pg_catalog.pg_try_advisory_lock_shared($1)", instance); err != nil {
		s.l.cfg.Logger.DebugContext(ctx, "no lock for this instance", "error", err) // the next canary brings us here again
		return
	}
	s.instance = instance
	registrar.Listening(instance)
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
