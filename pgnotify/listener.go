package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is where notifications come from.
type Source interface {
	// Listen connects and subscribes, each within seconds, and calls opened, once, when whatever is sent is received; from then on it
	// calls heard for each payload, until the connection breaks or ctx is done. The error says why.
	Listen(ctx context.Context, opened func(), heard func(payload string)) error
	// Send sends a payload to all that listen, by another connection than theirs.
	Send(ctx context.Context, payload string) error
	// Texts are what the log says of it.
	Texts() Texts
}

// Texts are what the log says of a Source.
type Texts struct {
	Up   string // it works
	Lost string // it does not, and is tried again soon
	Mute string // it cannot, as far as is seen; the remedy is in it
}

// The payloads besides keys, see [store.ParseKey]. Any role of the database may send any text, so anything else is ignored.
const (
	PayloadResync = "*" // TRUNCATE, an install, or a change whose key is not known
	CanaryPrefix  = "!" // a canary of this or another instance
	bucketPrefix  = "#" // a change in a bucket, of triggers written by hand: as PayloadResync
)

// ErrCannot is, in its chain, an error of Source.Listen's that time will not mend.
var ErrCannot = errors.New("notifications are impossible here")

// ErrSilent is why a connection is given up on which nothing arrives.
var ErrSilent = errors.New("a canary notification did not come back")

// Sink is told what notifications say. Its methods must not block. A Hub is a Sink.
type Sink interface {
	Notify(key store.Key)
	Resync()
}

// ListenerConfig configures a Listener. Zero means the default.
type ListenerConfig struct {
	// Source and Sink are required.
	Source Source
	Sink   Sink
	// Doubt says why changes may not arrive although notifications do, "" when they do; nil: they do.
	Doubt func() string
	// Idle reports whether nobody watches: a canary that is due waits for the first who does, once one has come back; nil: never.
	Idle func() bool
	// CanaryInterval is the time between canaries; default 4 s.
	CanaryInterval time.Duration
	// CanaryTimeout is how long a canary may be on its way, with no other notification coming meanwhile, before the
	// connection is given up; default 2 s.
	CanaryTimeout time.Duration
	// MuteRetry is the time between attempts once the source has shown not to work; default 1 min.
	MuteRetry time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the listener's metrics; nil: none.
	Registerer prometheus.Registerer
}

const (
	// muteSessions is after how many connections in a row that never delivered a canary a source counts as mute.
	muteSessions = 2
	// muteAfterProof is the same where it has worked before, about a minute: a database or a machine that stands still delivers
	// nothing either, and to wait for MuteRetry after that would be the longer outage.
	muteAfterProof = 8
	// maxCanaryTimeouts is how many times its time-out a canary may take while other notifications come.
	maxCanaryTimeouts = 5
	// doubtGrace is how long a doubt may last before the log says so.
	doubtGrace = 10 * time.Second
	// againAfter is the least time between two canaries.
	againAfter = time.Second
)

// Listener keeps one connection to a Source and tells a Sink what it hears, and to resync after each (re)connect. It proves
// by a canary that notifications arrive, because a dead connection, a transaction pooler or a failover are all silent.
type Listener struct {
	cfg     ListenerConfig
	metrics listenerMetrics
	up      atomic.Bool
	doubt   doubt // the session's
}

// NewListener returns a Listener that does nothing until Run.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	if cfg.Source == nil || cfg.Sink == nil {
		return nil, errors.New("pgnotify: ListenerConfig.Source and Sink are required")
	}
	if cfg.CanaryInterval < 0 || cfg.CanaryTimeout < 0 || cfg.MuteRetry < 0 {
		return nil, errors.New("pgnotify: ListenerConfig's durations must not be negative")
	}
	if cfg.CanaryInterval == 0 {
		cfg.CanaryInterval = 4 * time.Second
	}
	if cfg.CanaryTimeout == 0 {
		cfg.CanaryTimeout = 2 * time.Second
	}
	if cfg.MuteRetry == 0 {
		cfg.MuteRetry = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Doubt == nil {
		cfg.Doubt = func() string { return "" }
	}
	if cfg.Idle == nil {
		cfg.Idle = func() bool { return false }
	}
	l := &Listener{cfg: cfg}
	l.metrics = newListenerMetrics(cfg.Registerer, l.Up)
	return l, nil
}

// Up reports whether notifications are proven to arrive. While it is false the hub's safety net alone finds changes.
// Safe for concurrent use.
func (l *Listener) Up() bool { return l.up.Load() }

// Run listens until ctx is done, and returns nil: a connection that cannot be had is tried again for ever, after 100 ms to
// 5 s at random, or after MuteRetry once the source has shown not to work. It must run exactly once.
func (l *Listener) Run(ctx context.Context) error {
	var delays Backoff
	var lost, mute turn
	silent, limit := 0, muteSessions
	for {
		s := newSession(l)
		err := s.run(ctx)
		l.up.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		if !s.proven.IsZero() {
			delays, lost, mute, silent, limit = Backoff{}, turn{}, turn{}, 0, muteAfterProof
		}
		l.metrics.failures.WithLabelValues(s.failure(err)).Inc()
		if errors.Is(err, ErrSilent) && s.proven.IsZero() {
			silent++
		}
		delay, texts := delays.Next(), l.cfg.Source.Texts()
		if silent >= limit || errors.Is(err, ErrCannot) {
			delay = l.cfg.MuteRetry - mathrand.N(l.cfg.MuteRetry/10+1)
			mute.bad(func() { l.cfg.Logger.Error(texts.Mute, "error", err, "next_attempt_in", l.cfg.MuteRetry) })
			lost = turn{is: true}
		}
		lost.bad(func() { l.cfg.Logger.Warn(texts.Lost, "error", err) })
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// arrive notes that notifications do, and with them changes unless there is a doubt, of which the log speaks when it lasts.
func (l *Listener) arrive() {
	why := l.cfg.Doubt()
	if why != l.doubt.why {
		l.doubt = doubt{why: why, since: time.Now()}
	}
	if why != "" && time.Since(l.doubt.since) >= doubtGrace {
		l.doubt.said.bad(func() { l.cfg.Logger.Warn(why + "; the safety net finds changes meanwhile") })
	}
	if was := l.up.Swap(why == ""); !was && why == "" {
		l.cfg.Logger.Info(l.cfg.Source.Texts().Up)
	}
}

// doubt is what ListenerConfig.Doubt says.
type doubt struct {
	why   string
	since time.Time
	said  turn
}
