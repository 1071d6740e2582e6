package redisnotify

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
)

// maxPending is how many rows may wait to be published. Beyond it they are replaced by one resync, which makes all instances read what they
// watch.
const maxPending = 10_000

// heartbeatChecks is how many times in each HeartbeatInterval Run checks whether a heartbeat is due. With more, the first one is sent sooner.
const heartbeatChecks = 20

// PublisherConfig configures a Publisher. Zero means the default.
type PublisherConfig struct {
	// Redis says where to publish. Required; made by ParseURL.
	Redis *redis.Options
	// HeartbeatInterval is the time between ticker; default 4 s.
	HeartbeatInterval time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the publisher's metrics; nil: none.
	Registerer prometheus.Registerer
}

// Publisher is a Sink that publishes hints on Redis. Several hints for a row that waits to be published become one message. Several
// publishers of the same hints do no harm.
type Publisher struct {
	cfg     PublisherConfig
	wake    pgnotify.Bell // there is something to publish
	up      atomic.Bool
	resyncs pgnotify.Throttle

	published, failures prometheus.Counter

	mu     sync.Mutex
	rows   map[string]struct{}
	resync bool
}

var _ pgnotify.Sink = (*Publisher)(nil)

// NewPublisher returns a Publisher that publishes nothing until Run.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if cfg.Redis == nil {
		return nil, errors.New("redisnotify: PublisherConfig.Redis is required")
	}
	if cfg.HeartbeatInterval < 0 {
		return nil, errors.New("redisnotify: PublisherConfig.HeartbeatInterval must not be negative")
	}
	cfg.HeartbeatInterval = cmp.Or(cfg.HeartbeatInterval, heartbeatInterval)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	p := &Publisher{cfg: cfg, wake: pgnotify.NewBell(), rows: make(map[string]struct{})}
	to := promauto.With(cfg.Registerer)
	to.NewGaugeFunc(prometheus.GaugeOpts{Name: "auditstream_relay_redis_up", Help: "1 while Redis accepts what the relay publishes."}, func() float64 {
		if p.Up() {
			return 1
		}
		return 0
	})
	p.published = to.NewCounter(prometheus.CounterOpts{Name: "auditstream_relay_published_total", Help: "Messages that Redis accepted: hints, resyncs and heartbeats."})
	p.failures = to.NewCounter(prometheus.CounterOpts{Name: "auditstream_relay_failures_total", Help: "Failed attempts to publish; a resync makes up for the lost hints."})
	return p, nil
}

// Up reports whether Redis accepted the last messages, which are heartbeats at least. Safe for concurrent use.
func (p *Publisher) Up() bool { return p.up.Load() }

// Notify publishes a hint for a row of any feed, and reports whether row is one. It does not block. Safe for concurrent use, like Resync.
func (p *Publisher) Notify(row string) bool {
	_, key := pgnotify.SplitRow(row)
	types := []store.KeyType{store.IntegerKeys, store.UUIDKeys}
	if key != row { // it names its feed
		types = []store.KeyType{store.TextKeys}
	}
	if !slices.ContainsFunc(types, func(t store.KeyType) bool { _, ok := t.Parse(key); return ok }) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows[strings.Clone(row)] = struct{}{}
	if len(p.rows) > maxPending {
		clear(p.rows)
		p.Resync()
	}
	p.wake.Ring()
	return true
}

// Resync makes all instances read what they watch, once a second at most.
func (p *Publisher) Resync() {
	p.resyncs.Do(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.resync = true
		p.wake.Ring()
	})
}

// Run publishes hints until ctx is done, and returns nil. While listening reports that hints arrive here, it also publishes heartbeats: an
// instance that hears none knows that it cannot rely on hints. After a failure, one resync makes up for the lost hints. Call it exactly
// once.
func (p *Publisher) Run(ctx context.Context, listening func() bool) error {
	client := redis.NewClient(p.cfg.Redis)
	defer client.Close()
	ticker := time.NewTicker(p.cfg.HeartbeatInterval / heartbeatChecks)
	defer ticker.Stop()
	var delays pgnotify.Backoff
	var trouble pgnotify.Trouble
	var lastHeartbeat time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-ticker.C:
		}
		heartbeat := listening() && time.Since(lastHeartbeat) >= p.cfg.HeartbeatInterval
		err := p.publish(ctx, client, heartbeat)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || p.Up() { // otherwise there was nothing to publish
			trouble.Log(p.cfg.Logger, slog.LevelWarn, err,
				"Redis (REDIS_URL) takes no hints, trying again; the instances' safety nets find changes meanwhile", "Redis takes hints again")
		}
		if err == nil {
			if heartbeat {
				lastHeartbeat = time.Now()
			}
			if p.Up() {
				delays = pgnotify.Backoff{}
			}
			continue
		}
		p.Resync()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delays.Next()):
		}
	}
}

// publish sends all that waits, and perhaps a heartbeat, in one pipeline.
func (p *Publisher) publish(ctx context.Context, client *redis.Client, heartbeat bool) error {
	p.mu.Lock()
	rows, resync := p.rows, p.resync
	p.rows, p.resync = make(map[string]struct{}), false
	p.mu.Unlock()
	if len(rows) == 0 && !resync && !heartbeat {
		return nil
	}
	sent, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if resync {
			pipe.Publish(ctx, Prefix+pgnotify.PayloadResync, "")
		}
		for row := range rows {
			pipe.Publish(ctx, Prefix+row, "")
		}
		if heartbeat { // last, because it says that what came before was passed on
			pipe.Publish(ctx, Prefix+heartbeatPayload, "")
		}
		return nil
	})
	p.up.Store(err == nil)
	if err != nil {
		p.failures.Inc()
		return err
	}
	p.published.Add(float64(len(sent)))
	return nil
}
