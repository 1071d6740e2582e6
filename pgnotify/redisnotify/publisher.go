package redisnotify

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"auditstream/pgnotify"

	"github.com/redis/go-redis/v9"
)

// maxPending is how many ids may wait. Beyond it everything that is watched is read instead: a resync is one message.
const maxPending = 10_000

// Publisher is a Sink that passes on to Redis what it is told. An id that is told again while it waits is one message. Several
// publishers of the same hints do no harm.
type Publisher struct {
	options *redis.Options
	logger  *slog.Logger
	wake    chan struct{} // capacity 1: there is something to publish

	mu     sync.Mutex
	ids    map[int64]struct{}
	resync bool // says more than any ids
}

var _ pgnotify.Sink = (*Publisher)(nil)

// NewPublisher returns a Publisher that publishes nothing until Run. The options are made by ParseURL.
func NewPublisher(options *redis.Options, logger *slog.Logger) (*Publisher, error) {
	if options == nil || logger == nil {
		return nil, errors.New("redisnotify: a Publisher needs options and a logger")
	}
	return &Publisher{options: options, logger: logger, wake: make(chan struct{}, 1), ids: make(map[int64]struct{})}, nil
}

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

// Run publishes until ctx is done, and returns nil. What Redis did not take is made up for by a resync once it does. It must
// run exactly once.
func (p *Publisher) Run(ctx context.Context) error {
	client := redis.NewClient(p.options)
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
		if err == nil {
			if failing {
				p.logger.Info("Redis takes hints again")
			}
			delays, failing = pgnotify.Backoff{}, false
			continue
		}
		if !failing {
			failing = true
			p.logger.Warn("Redis (REDIS_URL) takes no hints, trying on; the instances' safety nets find changes meanwhile", "error", err)
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
	ids, resync := p.ids, p.resync
	p.ids, p.resync = make(map[int64]struct{}), false
	p.mu.Unlock()
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if resync {
			pipe.Publish(ctx, resyncChannel, "")
		}
		for id := range ids {
			pipe.Publish(ctx, Prefix+strconv.FormatInt(id, 10), "")
		}
		return nil
	})
	return err
}
