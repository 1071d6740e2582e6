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

// Prefix is the beginning of the channels' names.
const Prefix = "audit.progress."

const (
	// heartbeatPayload is what a relay sends every heartbeatInterval. It looks like another instance's canary, so a listener that does not
	// know it ignores it.
	heartbeatPayload  = pgnotify.CanaryPrefix + "relay"
	heartbeatInterval = 4 * time.Second
	// relayTimeout is how long a relay may be silent before it counts as dead: two heartbeats, and some time for their way.
	relayTimeout = 10 * time.Second
)

// Source is a pgnotify.Source that subscribes to Redis. The payload is what follows Prefix in a channel's name; a message's body is ignored.
// Safe for concurrent use.
type Source struct {
	options *redis.Options
	client  atomic.Pointer[redis.Client] // the one of the running Listen
	relay   atomic.Pointer[time.Time]    // when a relay was last heard; nil: never
}

var _ pgnotify.Source = (*Source)(nil)

// NewSource returns a Source. ParseURL makes the options.
func NewSource(options *redis.Options) *Source { return &Source{options: options} }

// Texts implements [pgnotify.Source].
func (*Source) Texts() pgnotify.Texts {
	return pgnotify.Texts{
		Up:   "listening for notifications on Redis (REDIS_URL)",
		Lost: "no subscription to Redis (REDIS_URL), reconnecting; the safety net finds changes meanwhile",
		Mute: "no message comes back from Redis (REDIS_URL): polling only. It must lead to one server that passes on what is published",
	}
}

// RelayDead reports whether no relay is heard although there should be one: because there was one, or because need is true.
func (s *Source) RelayDead(need bool) bool {
	heard := s.relay.Load()
	return heard == nil && need || heard != nil && time.Since(*heard) > relayTimeout
}

// Relayed reports whether a relay was ever heard.
func (s *Source) Relayed() bool { return s.relay.Load() != nil }

// Send implements [pgnotify.Source]. Call it only while Listen runs, after opened.
func (s *Source) Send(ctx context.Context, payload string) error {
	return s.client.Load().Publish(ctx, Prefix+payload, "").Err()
}

// Listen implements [pgnotify.Source]. It returns at the first error, because the library would reconnect silently.
func (s *Source) Listen(ctx context.Context, opened func(), heard func(payload string)) error {
	client := redis.NewClient(s.options)
	defer client.Close()
	s.client.Store(client)
	sub := client.PSubscribe(ctx, Prefix+"*")
	defer sub.Close()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // because the library's Receive does not end with its context
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
			return errors.New("the library has subscribed again") // messages may have been lost in between
		case *redis.Message:
			payload, _ := strings.CutPrefix(m.Channel, Prefix)
			if payload == heartbeatPayload {
				s.relay.Store(new(time.Now()))
			}
			heard(payload)
		}
	}
}
