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

// Source delivers notifications.
type Source interface {
	// Listen connects and subscribes, each within seconds. It calls opened once, when every payload sent from then on will be received,
	// and then calls heard for each payload. It returns why it ended: the connection broke, or ctx is done.
	Listen(ctx context.Context, opened func(), heard func(payload string)) error
	// Send sends a payload to all that listen, over another connection than theirs.
	Send(ctx context.Context, payload string) error
	// Texts returns the log messages about this source.
	Texts() Texts
}

// The payloads that do not name a row. Any role of the database may send any text, so an unknown payload is ignored.
const (
	PayloadResync = "*" // TRUNCATE, an install, or a change whose key is not known
	CanaryPrefix  = "!" // a canary of this or another instance
	bucketPrefix  = "#" // a change somewhere in a bucket, from a handwritten trigger; handled like PayloadResync
)

// Sink receives what notifications say. Its methods must not block.
type Sink interface {
	// Notify says that a row has changed: KEY for the feed audits, or FEED:KEY. It reports whether the Sink understood row.
	Notify(row string) bool
	// Resync says that any row may have changed.
	Resync()
}

// maxRow is the length of the longest payload that may name a row, in bytes. Longer ones are ignored.
const maxRow = store.MaxKey + 64

// SplitRow splits the payload that names a row into the feed's name and the key. Without a feed's name it returns store.DefaultFeed.
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
	// Doubt says why changes may not arrive although canaries do; "" means that they do. nil means no doubt, ever.
	Doubt func() string
	// Idle reports whether nobody watches. While it is true, a session that was proven sends no canaries. nil means never idle.
	Idle func() bool
	// CanaryInterval is the time between canaries; default 4 s. Longer means that a silent connection is noticed later.
	CanaryInterval time.Duration
	// CanaryTimeout is how long a canary may take while no other notification comes; default 2 s. After it the connection is closed.
	CanaryTimeout time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the listener's metrics; nil: none.
	Registerer prometheus.Registerer
}

const (
	// maxCanaryTimeouts is how many CanaryTimeouts a canary may take while other notifications come. Larger means that a broken
	// connection is noticed later during a flood; smaller, that a flood breaks a good one.
	maxCanaryTimeouts = 5
	// doubtGrace is how long a doubt lasts before it is logged.
	doubtGrace = 10 * time.Second
)

// Listener keeps one connection to a Source. It passes what it hears to a Sink, and calls Resync after each connect. It proves with
// canaries that notifications arrive, because a dead connection, a transaction pooler and a failover are all silent.
type Listener struct {
	cfg        ListenerConfig
	metrics    listenerMetrics
	up         atomic.Bool
	doubt      string    // the last result of Doubt; only the session's goroutine touches this and doubtSince
	doubtSince time.Time // when doubt began; zero after it was logged
}

// NewListener returns a Listener that does nothing until Run.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	if cfg.Source == nil || cfg.Sink == nil {
		return nil, errors.New("pgnotify: ListenerConfig.Source and Sink are required")
	}
	if min(cfg.CanaryInterval, cfg.CanaryTimeout) < 0 {
		return nil, errors.New("pgnotify: ListenerConfig's durations must not be negative")
	}
	cfg.CanaryInterval = cmp.Or(cfg.CanaryInterval, 4*time.Second)
	cfg.CanaryTimeout = cmp.Or(cfg.CanaryTimeout, 2*time.Second)
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

// Up reports whether notifications are proven to arrive. While it is false, only the hub's safety net finds changes.
// Safe for concurrent use.
func (l *Listener) Up() bool { return l.up.Load() }

// Run listens until ctx is done, and returns nil. It retries a lost connection for ever, with a back-off of 100 ms to 5 s, or every
// minute once it seems that the source cannot work. Call it exactly once.
func (l *Listener) Run(ctx context.Context) error {
	session := func(ctx context.Context) (proven bool, err error) {
		s := &session{l: l, listening: make(chan struct{}), failure: failConnect, proveBell: NewBell()}
		return s.run(ctx)
	}
	return connection{session: session, texts: l.cfg.Source.Texts(), logger: l.cfg.Logger}.run(ctx)
}

// markProven notes that a canary has arrived. The listener is then up, unless there is a doubt; a doubt that lasts is logged once.
func (l *Listener) markProven() {
	why := l.cfg.Doubt()
	if why != l.doubt {
		l.doubt, l.doubtSince = why, time.Now()
	}
	if why != "" && !l.doubtSince.IsZero() && time.Since(l.doubtSince) >= doubtGrace {
		l.cfg.Logger.Warn(why + "; the safety net finds changes meanwhile")
		l.doubtSince = time.Time{}
	}
	if was := l.up.Swap(why == ""); !was && why == "" {
		l.cfg.Logger.Info(l.cfg.Source.Texts().Up)
	}
}
