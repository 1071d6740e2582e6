package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"auditstream/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
)

// Channel is the PostgreSQL channel that the triggers notify.
const Channel = "auditstream"

// Sink is told what notifications say. Its methods must not block: while one runs, nothing is read from the connection,
// and PostgreSQL's queue fills up. A Hub is a Sink.
type Sink interface {
	Notify(key store.Key)
	Resync()
}

// Execer sends the canary. A pgxpool.Pool is one.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// ListenerConfig configures a Listener. Zero means the default.
type ListenerConfig struct {
	// Conn says where to LISTEN: a direct or session-pooled connection to the primary. Required; made by
	// pgx.ParseConfig.
	Conn *pgx.ConnConfig
	// Pool sends the canary, so it must be the way by which the application's database is otherwise reached. Required.
	Pool Execer
	// Sink is required.
	Sink Sink
	// Registrar is given the session once notifications are proven to arrive; nil: nothing is watched here, as for a relay.
	Registrar *Registrar
	// CanaryInterval is the time between canaries; default 4 s.
	CanaryInterval time.Duration
	// CanaryTimeout is how long a canary may be on its way, with no other notification coming meanwhile, before the
	// connection is given up; default 2 s.
	CanaryTimeout time.Duration
	// PollingRetry is the time between attempts once LISTEN has shown not to work; default 1 min.
	PollingRetry time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the listener's metrics; nil: none.
	Registerer prometheus.Registerer
}

const (
	connectTimeout = 5 * time.Second
	backoffMin     = 100 * time.Millisecond
	backoffMax     = 5 * time.Second
	// muteSessions is after how many connections in a row that never delivered a canary LISTEN counts as unusable here.
	muteSessions = 2
	// muteAfterProof is the same where LISTEN has worked before, about a minute: a database or a machine that stands still delivers
	// nothing either, and to wait for PollingRetry after that would be the longer outage.
	muteAfterProof = 8
)

// Listener keeps one connection LISTENing and tells a Sink what it hears, and to resync after each (re)connect. It proves
// by a canary that notifications arrive, because a dead connection, a transaction pooler or a failover are all silent.
type Listener struct {
	cfg     ListenerConfig
	metrics ListenerMetrics
	up      atomic.Bool
}

// NewListener returns a Listener that does nothing until Run.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	if cfg.Conn == nil || cfg.Pool == nil || cfg.Sink == nil {
		return nil, errors.New("pgnotify: ListenerConfig.Conn, Pool and Sink are required")
	}
	if cfg.CanaryInterval < 0 || cfg.CanaryTimeout < 0 || cfg.PollingRetry < 0 {
		return nil, errors.New("pgnotify: ListenerConfig's durations must not be negative")
	}
	if cfg.CanaryInterval == 0 {
		cfg.CanaryInterval = 4 * time.Second
	}
	if cfg.CanaryTimeout == 0 {
		cfg.CanaryTimeout = 2 * time.Second
	}
	if cfg.PollingRetry == 0 {
		cfg.PollingRetry = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Conn = listenConfig(cfg.Conn, "auditstream listener")
	l := &Listener{cfg: cfg}
	l.metrics = NewListenerMetrics(cfg.Registerer, l.Up)
	return l, nil
}

// Up reports whether notifications are proven to arrive. While it is false the hub's safety net alone finds changes.
// Safe for concurrent use.
func (l *Listener) Up() bool { return l.up.Load() }

// Run listens until ctx is done, and returns nil: a connection that cannot be had is tried again for ever, after 100 ms to
// 5 s at random, or after PollingRetry once LISTEN has shown not to work. It must run exactly once.
func (l *Listener) Run(ctx context.Context) error {
	var delays Backoff
	var log outage
	mute, muteLimit := 0, muteSessions
	for {
		s := newSession(l)
		err := s.run(ctx)
		l.setUp(false)
		if ctx.Err() != nil {
			return nil
		}
		if !s.proven.IsZero() {
			delays, mute, muteLimit, log = Backoff{}, 0, muteAfterProof, outage{}
		}
		l.metrics.Failures.WithLabelValues(s.failure(err)).Inc()

		delay := delays.Next()
		if errors.Is(err, ErrSilent) && s.proven.IsZero() {
			mute++
		}
		if mute >= muteLimit || refusesListen(err) {
			delay = l.cfg.PollingRetry - rand.N(l.cfg.PollingRetry/10+1)
			log.unusable(l.cfg.Logger, err, l.cfg.PollingRetry)
		} else {
			log.lost(l.cfg.Logger, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// proofLasts is for how long a canary that came back proves that notifications arrive: two more could have been sent.
func (l *Listener) proofLasts() time.Duration {
	return 2 * (l.cfg.CanaryInterval + l.cfg.CanaryTimeout)
}

func (l *Listener) setUp(up bool) {
	if l.up.Swap(up) == up {
		return
	}
	if up {
		l.cfg.Logger.Info("listening for notifications", "channel", Channel)
	}
}

// Backoff grows from backoffMin to backoffMax; each delay is half fixed, half random.
type Backoff struct{ last time.Duration }

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, backoffMin), backoffMax)
	return b.last/2 + rand.N(b.last/2)
}

// outage logs once that the connection was lost and once that LISTEN does not work, however many attempts follow.
type outage struct{ lostLogged, unusableLogged bool }

func (o *outage) lost(logger *slog.Logger, err error) {
	if o.lostLogged || o.unusableLogged {
		logger.Debug("listening failed again", "error", err)
		return
	}
	o.lostLogged = true
	logger.Warn("listening connection lost, reconnecting; the safety net finds changes meanwhile", "error", err)
}

func (o *outage) unusable(logger *slog.Logger, err error, retry time.Duration) {
	if o.unusableLogged {
		logger.Debug("LISTEN still does not work", "error", err)
		return
	}
	o.unusableLogged = true
	logger.Error("LISTEN does not work on this connection: polling only. Set DATABASE_LISTEN_URL to a direct connection to the primary (a transaction pooler or a standby cannot LISTEN)",
		"error", err, "next_attempt_in", retry)
}

// refusesListen reports whether PostgreSQL said that LISTEN is impossible here: "cannot execute LISTEN during recovery" on
// a standby is 25006 (read_only_sql_transaction).
func refusesListen(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == "25006" || pgErr.Code == "0A000")
}

// ErrSilent is why a connection is given up on which nothing arrives.
var ErrSilent = errors.New("a canary notification did not come back")

func silentAfter(d time.Duration) error { return fmt.Errorf("%w within %v", ErrSilent, d) }
