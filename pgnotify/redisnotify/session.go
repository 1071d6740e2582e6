package redisnotify

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"auditstream/pgnotify"

	"github.com/redis/go-redis/v9"
)

// session is the life of one subscription: connect, subscribe, hear, until it breaks or falls silent.
type session struct {
	l      *Listener
	ready  chan struct{} // closed when the subscription is in force
	sent   atomic.Pointer[pgnotify.Canary]
	heard  atomic.Uint64 // messages of any kind
	lead   lead          // belongs to hear
	began  time.Time     // of watch, with the subscription in force; belongs to it
	proven time.Time     // when a canary last came back; belongs to watch
	stars  *pgnotify.ResyncLimiter
	beats  chan struct{} // capacity 1: a relay is heard again
	// missed is that the log has said so of the relay; belongs to watch.
	missed bool
}

func newSession(l *Listener) *session {
	return &session{l: l, ready: make(chan struct{}), stars: pgnotify.NewResyncLimiter(l.cfg.Sink.Resync), beats: make(chan struct{}, 1)}
}

// run returns why the session ended. The library would reconnect by itself, and say nothing; the first error ends it here
// instead, and Listener.Run decides what follows.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.stars.Stop()
	subscription := s.l.client.PSubscribe(ctx, pattern)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancel(s.watch(ctx))
		_ = subscription.Close() // wakes hear, which no context does
	}()
	cancel(s.hear(ctx, subscription)) // the first cause wins
	<-watched
	return context.Cause(ctx)
}

// hear is the only reader of the subscription. It does not block on anything else: Redis would drop a client that is slow.
func (s *session) hear(ctx context.Context, subscription *redis.PubSub) error {
	for {
		message, err := subscription.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			select {
			case <-s.ready:
				return errors.New("subscribed twice") // messages may have been lost between
			default:
			}
			s.l.metrics.Connects.Inc()
			s.l.cfg.Sink.Resync() // whatever was committed before may have been missed
			close(s.ready)
		case *redis.Message:
			s.message(m.Channel, m.Payload)
		}
	}
}

// message passes on what a channel's name says. A hint is one whatever its body says.
func (s *session) message(channel, body string) {
	s.heard.Add(1)
	kind := pgnotify.NotifyIgnored
	payload, ours := strings.CutPrefix(channel, Prefix)
	switch id, ok := pgnotify.ParseID(payload); {
	case !ours:
	case ok:
		kind = pgnotify.NotifyRow
		if s.lead.counts(body, time.Now()) {
			s.l.cfg.Sink.Notify(id)
		} else {
			s.l.cfg.Again(id)
		}
	case payload == pgnotify.PayloadResync:
		kind = pgnotify.NotifyResync
		s.stars.Request()
	case payload == beat:
		kind = pgnotify.NotifyCanary
		s.l.relay.Store(new(time.Now()))
		if !s.l.up.Load() {
			select {
			case s.beats <- struct{}{}:
			default:
			}
		}
	case strings.HasPrefix(payload, pgnotify.CanaryPrefix):
		kind = pgnotify.NotifyCanary
		if c := s.sent.Load(); c != nil && payload == c.Payload { // not another instance's
			c.CameBack()
		}
	}
	s.l.metrics.Notifications.WithLabelValues(kind).Inc()
}

// watch sends a canary over another connection every interval and returns pgnotify.ErrSilent when one does not come back.
func (s *session) watch(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil
	case <-time.After(4 * ioTimeout):
		return errors.New("connecting and subscribing took too long")
	}
	s.began = time.Now()
	for {
		if err := s.canary(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.beats: // a relay is back: no need to wait
		case <-time.After(s.l.cfg.CanaryInterval):
		}
	}
}

// canary sends one and waits for it. One that cannot be sent proves nothing about the subscription, which is kept, but
// nothing can be said to be up.
func (s *session) canary(ctx context.Context) error {
	timeout := s.l.cfg.CanaryTimeout
	c := pgnotify.NewCanary()
	s.sent.Store(c)
	sendCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	if err := s.l.client.Publish(sendCtx, Prefix+c.Payload, "").Err(); err != nil {
		if ctx.Err() == nil && s.l.up.Load() {
			s.l.cfg.Logger.Warn("Redis (REDIS_URL) takes no message from us, so it is not known whether any arrives; the safety net finds changes meanwhile", "error", err)
		}
		s.l.setUp(false)
		return nil
	}
	came, err := c.Await(ctx, start, timeout, s.heard.Load)
	if came {
		s.l.metrics.Canary.Observe(time.Since(start).Seconds())
		s.proven = time.Now()
		s.arrives()
	}
	return err
}

// arrives notes that messages do, and with them hints unless the relay that should send them is dead.
func (s *session) arrives() {
	dead := s.l.relayDead()
	// Not at once: one that lives has just begun, as we have, or has its next beat to come.
	if dead && !s.missed && time.Since(s.began) > s.l.cfg.RelayTimeout {
		s.missed = true
		s.l.cfg.Logger.Warn("no relay is heard on Redis (auditstream relay, with the same REDIS_URL); the safety net finds changes meanwhile")
	}
	s.missed = s.missed && dead
	s.l.setUp(!dead)
}

func (s *session) failure(err error) string {
	select {
	case <-s.ready:
	default:
		return pgnotify.FailConnect
	}
	if errors.Is(err, pgnotify.ErrSilent) {
		return pgnotify.FailSilent
	}
	return pgnotify.FailLost
}
