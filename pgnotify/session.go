package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

	mu        sync.Mutex
	work      []*work            // to be done on the connection, between two notifications
	interrupt context.CancelFunc // ends the wait for a notification; nil: there is none
	over      bool
}

// work is what somebody wants done on the session's connection.
type work struct {
	ctx  context.Context
	f    func(ctx context.Context, conn *pgx.Conn) error
	done chan error // capacity 1
}

// errSessionOver is why nothing is done on a session's connection any more.
var errSessionOver = errors.New("the session that listens is over")

// do runs f on the connection that listens, between two notifications, and returns its error, which is the session's end. f must
// keep to its context: notifications wait meanwhile. Safe for concurrent use.
func (s *session) do(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	w := &work{ctx: ctx, f: f, done: make(chan error, 1)}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return errSessionOver
	}
	s.work = append(s.work, w)
	if s.interrupt != nil {
		s.interrupt()
	}
	s.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end refuses what is still to be done, and what comes later.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, w := range s.work {
		w.done <- errSessionOver
	}
	s.work = nil
}

// begin returns what is to be done, and unless there is something the context of a wait that do interrupts.
func (s *session) begin(ctx context.Context) (todo []*work, wait context.Context, stop context.CancelFunc) {
	wait, stop = context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	todo, s.work = s.work, nil
	s.interrupt = stop
	return todo, wait, stop
}

func newSession(l *Listener) *session {
	return &session{l: l, ready: make(chan struct{}), stars: NewResyncLimiter(l.cfg.Sink.Resync)}
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
		s.end()
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
		defer cancel()
		_ = conn.Close(closeCtx) // the locks go with it
	}()
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{Channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.listening()
	for {
		if err := s.hearOne(ctx, conn); err != nil {
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

// hearOne does what is to be done, or waits for a notification.
func (s *session) hearOne(ctx context.Context, conn *pgx.Conn) error {
	todo, wait, stop := s.begin(ctx)
	defer stop()
	for k, w := range todo {
		if w.ctx.Err() != nil {
			continue // nobody waits any more
		}
		err := w.f(w.ctx, conn)
		w.done <- err
		if err != nil {
			for _, rest := range todo[k+1:] {
				rest.done <- errSessionOver
			}
			return err
		}
	}
	if len(todo) > 0 {
		return nil
	}
	n, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		s.hear(ctx, n, conn)
		return nil
	case wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed():
		return nil // interrupted
	default:
		return fmt.Errorf("wait for a notification: %w", err)
	}
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

// hear is called for each notification.
func (s *session) hear(ctx context.Context, n *pgconn.Notification, conn *pgx.Conn) {
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
