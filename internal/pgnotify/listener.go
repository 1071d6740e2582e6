package pgnotify

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"auditstream/internal/store"

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

// The payloads besides those that name a row. Any role of the database may send any text, so what nobody understands is ignored.
const (
	PayloadResync = "*" // TRUNCATE, an install, or a change whose key is not known
	CanaryPrefix  = "!" // a canary of this or another instance
	bucketPrefix  = "#" // a change in a bucket, of triggers written by hand: as PayloadResync, heeded once a second at most
)

// Sink is told what notifications say. Its methods must not block.
type Sink interface {
	// Notify is told which row has changed, and reports whether it understands: the key of one of audits, or FEED:KEY.
	Notify(row string) bool
	// Resync is told that anything may have changed.
	Resync()
}

// maxRow is how long what names a row may be.
const maxRow = store.MaxKey + 64

// SplitRow splits what a notification names a row by into the feed's name, store.DefaultFeed where it says none, and the key.
func SplitRow(row string) (feed, key string) {
	feed, key, named := strings.Cut(row, ":")
	if !named || feed == "" || strings.Trim(feed, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return store.DefaultFeed, row
	}
	return feed, key
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
	// maxCanaryTimeouts is how many times its time-out a canary may take while other notifications come.
	maxCanaryTimeouts = 5
	// doubtGrace is how long a doubt may last before the log says so.
	doubtGrace = 10 * time.Second
)

// Listener keeps one connection to a Source and tells a Sink what it hears, and to resync after each (re)connect. It proves
// by a canary that notifications arrive, because a dead connection, a transaction pooler or a failover are all silent.
type Listener struct {
	cfg     ListenerConfig
	metrics listenerMetrics
	up      atomic.Bool
	doubt   string    // the session's, as is the next
	doubted time.Time // since when; zero: it was logged
}

// NewListener returns a Listener that does nothing until Run.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	if cfg.Source == nil || cfg.Sink == nil {
		return nil, errors.New("pgnotify: ListenerConfig.Source and Sink are required")
	}
	if min(cfg.CanaryInterval, cfg.CanaryTimeout, cfg.MuteRetry) < 0 {
		return nil, errors.New("pgnotify: ListenerConfig's durations must not be negative")
	}
	cfg.CanaryInterval = cmp.Or(cfg.CanaryInterval, 4*time.Second)
	cfg.CanaryTimeout = cmp.Or(cfg.CanaryTimeout, 2*time.Second)
	cfg.MuteRetry = cmp.Or(cfg.MuteRetry, time.Minute)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
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
	session := func(ctx context.Context) (proven bool, err error) {
		s := &session{l: l, ready: make(chan struct{}), failure: failConnect, again: NewBell()}
		return s.run(ctx)
	}
	return connection{session: session, texts: l.cfg.Source.Texts(), logger: l.cfg.Logger, rest: l.cfg.MuteRetry}.run(ctx)
}

// arrive notes that notifications do, and with them changes unless there is a doubt, of which the log speaks once when it lasts.
func (l *Listener) arrive() {
	why := l.cfg.Doubt()
	if why != l.doubt {
		l.doubt, l.doubted = why, time.Now()
	}
	if why != "" && !l.doubted.IsZero() && time.Since(l.doubted) >= doubtGrace {
		l.cfg.Logger.Warn(why + "; the safety net finds changes meanwhile")
		l.doubted = time.Time{}
	}
	if was := l.up.Swap(why == ""); !was && why == "" {
		l.cfg.Logger.Info(l.cfg.Source.Texts().Up)
	}
}
