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

// maxPending is how many rows may wait. Beyond it everything that is watched is read instead: a resync is one message.
const maxPending = 10_000

// beatChecks is how often in each interval it is looked whether a beat is due: the first is wanted soon.
const beatChecks = 20

// PublisherConfig configures a Publisher. Zero means the default.
type PublisherConfig struct {
	// Redis says where to publish. Required; made by ParseURL.
	Redis *redis.Options
	// BeatInterval is the time between beats; default 4 s.
	BeatInterval time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the publisher's metrics; nil: none.
	Registerer prometheus.Registerer
}

// Publisher is a Sink that passes on to Redis what it is told. A row that is told again while it waits is one message. Several
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
	if cfg.BeatInterval < 0 {
		return nil, errors.New("redisnotify: PublisherConfig.BeatInterval must not be negative")
	}
	cfg.BeatInterval = cmp.Or(cfg.BeatInterval, beatInterval)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	p := &Publisher{cfg: cfg, wake: pgnotify.NewBell(), rows: make(map[string]struct{})}
	to := promauto.With(cfg.Registerer)
	to.NewGaugeFunc(prometheus.GaugeOpts{Name: "auditstream_relay_redis_up", Help: "1 while Redis takes what the relay publishes."}, func() float64 {
		if p.Up() {
			return 1
		}
		return 0
	})
	p.published = to.NewCounter(prometheus.CounterOpts{Name: "auditstream_relay_published_total", Help: "Messages that Redis took: hints, resyncs and heartbeats."})
	p.failures = to.NewCounter(prometheus.CounterOpts{Name: "auditstream_relay_failures_total", Help: "Attempts to publish that Redis did not take; a resync makes up for what was in them."})
	return p, nil
}

// Up reports whether Redis took what was last published, a beat at the least. Safe for concurrent use.
func (p *Publisher) Up() bool { return p.up.Load() }

// Notify has the hint for a row published, of whatever feed. It does not block, and is safe for concurrent use, as is Resync.
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

// Resync has all instances read whatever they watch, once a second at most.
func (p *Publisher) Resync() {
	p.resyncs.Do(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.resync = true
		p.wake.Ring()
	})
}

// Run publishes until ctx is done, and returns nil: what it is told, and every interval, as long as listening says that hints arrive
// here, that they are relayed; an instance that hears none of that any more knows that it cannot count on hints. What Redis did not
// take is made up for by a resync once it does. It must run exactly once.
func (p *Publisher) Run(ctx context.Context, listening func() bool) error {
	client := redis.NewClient(p.cfg.Redis)
	defer client.Close()
	beats := time.NewTicker(p.cfg.BeatInterval / beatChecks)
	defer beats.Stop()
	var delays pgnotify.Backoff
	var trouble pgnotify.Trouble
	var beaten time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-beats.C:
		}
		beat := listening() && time.Since(beaten) >= p.cfg.BeatInterval
		err := p.publish(ctx, client, beat)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || p.Up() { // else there was nothing to publish
			trouble.Log(p.cfg.Logger, slog.LevelWarn, err, "Redis (REDIS_URL) takes no hints, trying on; the instances' safety nets find changes meanwhile", "Redis takes hints again")
		}
		if err == nil {
			if beat {
				beaten = time.Now()
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

// publish sends all that waits in one go.
func (p *Publisher) publish(ctx context.Context, client *redis.Client, vouch bool) error {
	p.mu.Lock()
	rows, resync := p.rows, p.resync
	p.rows, p.resync = make(map[string]struct{}), false
	p.mu.Unlock()
	if len(rows) == 0 && !resync && !vouch {
		return nil
	}
	sent, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if resync {
			pipe.Publish(ctx, Prefix+pgnotify.PayloadResync, "")
		}
		for row := range rows {
			pipe.Publish(ctx, Prefix+row, "")
		}
		if vouch { // the last: it vouches for what came before
			pipe.Publish(ctx, Prefix+beat, "")
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
