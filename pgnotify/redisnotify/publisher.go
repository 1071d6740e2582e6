package redisnotify

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"auditstream/pgnotify"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// maxPending is how many ids may wait. Beyond it everything that is watched is read instead: a resync is one message.
const maxPending = 10_000

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

// Publisher is a Sink that passes on to Redis what it is told. An id that is told again while it waits is one message. Several
// publishers of the same hints do no harm: each has a name of its own, by which a Listener knows whose to count.
type Publisher struct {
	cfg     PublisherConfig
	name    string
	wake    chan struct{} // capacity 1: there is something to publish
	up      atomic.Bool
	metrics publisherMetrics

	mu     sync.Mutex
	ids    map[int64]struct{}
	resync bool // says more than any ids
	beat   bool
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
	return &Publisher{cfg: cfg, name: newName(), wake: make(chan struct{}, 1), ids: make(map[int64]struct{}), metrics: newPublisherMetrics(cfg.Registerer)}, nil
}

// Up reports whether Redis took what was last published, a beat at the least. Safe for concurrent use.
func (p *Publisher) Up() bool { return p.up.Load() }

// Notify has the hint for an audit published. It does not block, and is safe for concurrent use, as is Resync.
func (p *Publisher) Notify(id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resync {
		return
	}
	p.ids[id] = struct{}{}
	if len(p.ids) > maxPending {
		p.all()
	}
	p.ring()
}

// Resync has all instances read whatever they watch.
func (p *Publisher) Resync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all()
	p.ring()
}

// all replaces what waits by the resync that covers it. The caller holds mu.
func (p *Publisher) all() {
	p.resync = true
	clear(p.ids)
}

func (p *Publisher) ring() {
	select {
	case p.wake <- struct{}{}:
	default: // already ringing
	}
}

// Beat publishes every interval, until ctx is done, that hints are relayed, as long as listening says that they arrive here. An
// instance that hears none any more knows that it cannot count on hints.
func (p *Publisher) Beat(ctx context.Context, listening func() bool) error {
	for {
		delay := p.cfg.BeatInterval
		if listening() {
			p.mu.Lock()
			p.beat = true
			p.mu.Unlock()
			p.ring()
		} else {
			delay /= 20
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// Run publishes until ctx is done, and returns nil. What Redis did not take is made up for by a resync once it does. It must
// run exactly once.
func (p *Publisher) Run(ctx context.Context) error {
	client := redis.NewClient(p.cfg.Redis)
	defer client.Close()
	var delays pgnotify.Backoff
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		err := p.publish(ctx, client)
		if ctx.Err() != nil {
			return nil
		}
		p.setUp(err == nil)
		if err == nil {
			if failing {
				p.cfg.Logger.Info("Redis takes hints again")
			}
			delays, failing = pgnotify.Backoff{}, false
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
func (p *Publisher) publish(ctx context.Context, client *redis.Client) error {
	p.mu.Lock()
	ids, resync, beat := p.ids, p.resync, p.beat
	p.ids, p.resync, p.beat = make(map[int64]struct{}), false, false
	p.mu.Unlock()
	sent, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if resync {
			pipe.Publish(ctx, resyncChannel, "")
		}
		for id := range ids {
			pipe.Publish(ctx, Prefix+strconv.FormatInt(id, 10), p.name)
		}
		if beat { // the last: it vouches for what came before
			pipe.Publish(ctx, beatChannel, "")
		}
		return nil
	})
	if err != nil {
		p.metrics.failures.Inc()
		p.mu.Lock()
		p.beat = p.beat || beat
		p.mu.Unlock()
		return err
	}
	p.metrics.published.Add(float64(len(sent)))
	return nil
}

func (p *Publisher) setUp(up bool) {
	p.up.Store(up)
	p.metrics.up.Set(0)
	if up {
		p.metrics.up.Set(1)
	}
}
