package redisnotify

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"auditstream/internal/pgnotify"

	"github.com/redis/go-redis/v9"
)

// Prefix is what the names of the channels begin with.
const Prefix = "audit.progress."

const (
	// beat is the payload that a relay sends every beatInterval. It looks like a canary, which whoever does not know it ignores.
	beat         = pgnotify.CanaryPrefix + "relay"
	beatInterval = 4 * time.Second
	// relayTimeout is how long a relay may be silent before it counts as dead.
	relayTimeout = 10 * time.Second
)

// Source is the pgnotify.Source of Redis' publish and subscribe. What follows Prefix in a channel's name is the payload; what a
// message's body says does not matter. Safe for concurrent use.
type Source struct {
	options *redis.Options
	client  atomic.Pointer[redis.Client] // Listen's
	relay   atomic.Pointer[time.Time]    // when one was last heard; nil: never
}

var _ pgnotify.Source = (*Source)(nil)

// NewSource returns a Source. options are ParseURL's.
func NewSource(options *redis.Options) *Source { return &Source{options: options} }

// Texts implements [pgnotify.Source].
func (*Source) Texts() pgnotify.Texts {
	return pgnotify.Texts{
		Up:   "listening for notifications on Redis (REDIS_URL)",
		Lost: "no subscription to Redis (REDIS_URL), reconnecting; the safety net finds changes meanwhile",
		Mute: "no message comes back from Redis (REDIS_URL): polling only. It must lead to one server that passes on what is published",
	}
}

// RelayDead reports whether no relay is heard where there should be one: there was one, or need says so.
func (s *Source) RelayDead(need bool) bool {
	heard := s.relay.Load()
	return heard == nil && need || heard != nil && time.Since(*heard) > relayTimeout
}

// Relayed reports whether a relay was heard.
func (s *Source) Relayed() bool { return s.relay.Load() != nil }

// Send implements [pgnotify.Source], while Listen listens.
func (s *Source) Send(ctx context.Context, payload string) error {
	return s.client.Load().Publish(ctx, Prefix+payload, "").Err()
}

// Listen implements [pgnotify.Source]. The library would reconnect by itself, and say nothing: the first error is the end here.
func (s *Source) Listen(ctx context.Context, opened func(), heard func(payload string)) error {
	client := redis.NewClient(s.options)
	defer client.Close()
	s.client.Store(client)
	sub := client.PSubscribe(ctx, Prefix+"*")
	defer sub.Close()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // no context ends the library's wait
	confirmed, err := sub.ReceiveTimeout(ctx, 2*ioTimeout)
	if _, ok := confirmed.(*redis.Subscription); err == nil && !ok {
		err = errors.New("the subscription was not confirmed")
	}
	if err != nil {
		return err
	}
	opened()
	for {
		message, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			return errors.New("subscribed twice") // messages may have been lost between
		case *redis.Message:
			payload, _ := strings.CutPrefix(m.Channel, Prefix)
			if payload == beat {
				s.relay.Store(new(time.Now()))
			}
			heard(payload)
		}
	}
}
