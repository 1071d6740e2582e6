package redisnotify

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"auditstream/pgnotify"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// ListenerConfig configures a Listener. Zero means the default.
type ListenerConfig struct {
	// Redis says where to subscribe. Required; made by ParseURL.
	Redis *redis.Options
	// Sink is required.
	Sink pgnotify.Sink
	// Again is told, in place of Sink.Notify, of a hint from a relay other than the one whose hints count as the changes: each
	// relay passes on each of them. Nil: Sink.Notify.
	Again func(id int64)
	// CanaryInterval is the time between canaries; default 4 s.
	CanaryInterval time.Duration
	// CanaryTimeout is how long a canary may be on its way, with no other message coming meanwhile, before the connection
	// is given up; default 2 s.
	CanaryTimeout time.Duration
	// NeedRelay is for a service whose hints come from a relay alone: Up is false until one is heard. Otherwise a relay is
	// missed only once it has been heard.
	NeedRelay bool
	// Ringing reports whether the triggers ring for this service. It is asked where a relay passes on what they ring; nil: they
	// do.
	Ringing func() bool
	// RelayTimeout is how long a relay may be silent before it counts as dead; default 10 s, for a beat every 4 s.
	RelayTimeout time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the listener's metrics, those of a pgnotify.Listener; nil: none.
	Registerer prometheus.Registerer
}

// Listener keeps one pattern subscription and tells a Sink what it hears, and to resync after each (re)connect. It proves by
// a canary that messages arrive, because a dead connection is silent.
type Listener struct {
	cfg     ListenerConfig
	client  *redis.Client
	metrics pgnotify.ListenerMetrics
	up      atomic.Bool
	relay   atomic.Pointer[time.Time] // when one was last heard; nil: never
}

// NewListener returns a Listener that does nothing until Run.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	if cfg.Redis == nil || cfg.Sink == nil {
		return nil, errors.New("redisnotify: ListenerConfig.Redis and Sink are required")
	}
	if cfg.CanaryInterval < 0 || cfg.CanaryTimeout < 0 || cfg.RelayTimeout < 0 {
		return nil, errors.New("redisnotify: ListenerConfig's durations must not be negative")
	}
	if cfg.CanaryInterval == 0 {
		cfg.CanaryInterval = 4 * time.Second
	}
	if cfg.CanaryTimeout == 0 {
		cfg.CanaryTimeout = 2 * time.Second
	}
	if cfg.RelayTimeout == 0 {
		cfg.RelayTimeout = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Ringing == nil {
		cfg.Ringing = func() bool { return true }
	}
	if cfg.Again == nil {
		cfg.Again = cfg.Sink.Notify
	}
	l := &Listener{cfg: cfg}
	l.metrics = pgnotify.NewListenerMetrics(cfg.Registerer, l.Up)
	return l, nil
}

// Up reports whether hints are proven to arrive. While it is false the hub's safety net alone finds changes. Safe for
// concurrent use.
func (l *Listener) Up() bool { return l.up.Load() && (!l.relayed() || l.cfg.Ringing()) }

func (l *Listener) relayed() bool { return l.cfg.NeedRelay || l.relay.Load() != nil }

// relayDead reports whether there is no relay where there should be one.
func (l *Listener) relayDead() bool {
	heard := l.relay.Load()
	return heard == nil && l.cfg.NeedRelay || heard != nil && time.Since(*heard) > l.cfg.RelayTimeout
}

// Run listens until ctx is done, and returns nil: a connection that cannot be had is tried again for ever, after 100 ms to 5 s
// at random. It must run exactly once.
func (l *Listener) Run(ctx context.Context) error {
	l.client = redis.NewClient(l.cfg.Redis)
	defer l.client.Close()
	var delays pgnotify.Backoff
	logged := false
	for {
		s := newSession(l)
		err := s.run(ctx)
		l.setUp(false)
		if ctx.Err() != nil {
			return nil
		}
		if !s.proven.IsZero() {
			delays, logged = pgnotify.Backoff{}, false
		}
		l.metrics.Failures.WithLabelValues(s.failure(err)).Inc()
		if !logged {
			logged = true
			l.cfg.Logger.Warn("no subscription to Redis (REDIS_URL), reconnecting; the safety net finds changes meanwhile", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delays.Next()):
		}
	}
}

func (l *Listener) setUp(up bool) {
	if l.up.Swap(up) == up {
		return
	}
	if up {
		l.cfg.Logger.Info("listening for notifications", "channel", pattern)
	}
}
