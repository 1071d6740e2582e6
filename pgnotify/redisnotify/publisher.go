package redisnotify

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"auditstream/pgnotify"
	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
)

// maxPending is how many keys may wait. Beyond it everything that is watched is read instead: a resync is one message.
const maxPending = 10_000

// resyncInterval is the time between two resyncs: any role of the database can ask for one as often as it likes.
const resyncInterval = time.Second

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

// Publisher is a Sink that passes on to Redis what it is told. A key that is told again while it waits is one message. Several
// publishers of the same hints do no harm.
type Publisher struct {
	cfg  PublisherConfig
	wake chan struct{} // capacity 1: there is something to publish
	up   atomic.Bool

	published, failures prometheus.Counter

	mu   sync.Mutex
	keys map[store.Key]struct{}

	resync   bool
	resynced time.Time
	later    *time.Timer // rings when resync may be published again
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
	if cfg.BeatInterval == 0 {
		cfg.BeatInterval = beatInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Publisher{cfg: cfg, wake: make(chan struct{}, 1), keys: make(map[store.Key]struct{})}
	p.later = time.AfterFunc(time.Hour, p.ring)
	to := promauto.With(cfg.Registerer)
	to.NewGaugeFunc(prometheus.GaugeOpts{Name: "auditstream_relay_redis_up", Help: "1 while Redis takes what the relay publishes."}, func() float64 {
		if p.Up() {
			return 1
		}
		return 0
	})
	p.published = to.NewCounter(prometheus.CounterOpts{Name: "auditstream_relay_published_total", Help: "Messages that Redis took: hints, resyncs and beats."})
	p.failures = to.NewCounter(prometheus.CounterOpts{Name: "auditstream_relay_failures_total", Help: "Attempts to publish that Redis did not take; a resync makes up for what was in them."})
	return p, nil
}

// Up reports whether Redis took what was last published, a beat at the least. Safe for concurrent use.
func (p *Publisher) Up() bool { return p.up.Load() }

// Notify has the hint for an audit published. It does not block, and is safe for concurrent use, as is Resync.
func (p *Publisher) Notify(key store.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[key] = struct{}{}
	if len(p.keys) > maxPending {
		p.resync = true
		clear(p.keys)
	}
	p.ring()
}

// Resync has all instances read whatever they watch.
func (p *Publisher) Resync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resync = true
	p.ring()
}

func (p *Publisher) ring() {
	select {
	case p.wake <- struct{}{}:
	default: // already ringing
	}
}

// Run publishes until ctx is done, and returns nil: what it is told, and every interval, as long as listening says that hints arrive
// here, that they are relayed; an instance that hears none of that any more knows that it cannot count on hints. What Redis did not
// take is made up for by a resync once it does. It must run exactly once.
func (p *Publisher) Run(ctx context.Context, listening func() bool) error {
	client := redis.NewClient(p.cfg.Redis)
	defer client.Close()
	beats := time.NewTicker(p.cfg.BeatInterval / beatChecks)
	defer beats.Stop()
	defer p.later.Stop()
	var delays pgnotify.Backoff
	var beaten time.Time
	failing := false
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
		if err == nil {
			if beat {
				beaten = time.Now()
			}
			if failing && p.Up() { // there may have been nothing to publish
				p.cfg.Logger.Info("Redis takes hints again")
				delays, failing = pgnotify.Backoff{}, false
			}
			continue
		}
		if !failing {
			failing = true
			p.cfg.Logger.Warn("Redis (REDIS_URL) takes no hints, trying on; the instances' safety nets find changes meanwhile", "error", err)
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
	wait := time.Until(p.resynced.Add(resyncInterval))
	keys, resync := p.keys, p.resync && wait <= 0
	p.keys, p.resync = make(map[store.Key]struct{}), p.resync && !resync
	if p.resync {
		p.later.Reset(wait)
	}
	p.mu.Unlock()
	if len(keys) == 0 && !resync && !vouch {
		return nil
	}
	sent, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if resync {
			pipe.Publish(ctx, Prefix+pgnotify.PayloadResync, "")
		}
		for key := range keys {
			pipe.Publish(ctx, Prefix+string(key), "")
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
	if resync {
		p.mu.Lock()
		p.resynced = time.Now()
		p.mu.Unlock()
	}
	return nil
}
