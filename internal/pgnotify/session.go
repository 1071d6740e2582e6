package pgnotify

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// idleCheck is how often a session that sends no canaries, because nobody watches, checks whether somebody does. Longer means a later
// first canary for the first viewer.
const idleCheck = 100 * time.Millisecond

// session is one connection to the Source, from its opening until it breaks or falls silent.
type session struct {
	l             *Listener
	listening     chan struct{}          // closed when the Source receives what is sent
	failure       string                 // the metric's label if the session ended now; after listening is closed only prove writes it
	inFlight      atomic.Pointer[canary] // the canary that is on its way
	received      atomic.Uint64          // notifications of any kind
	proven        time.Time              // when a canary last came back; zero: never; only prove touches it
	proveBell     Bell                   // makes prove send a canary at once
	proveThrottle Throttle               // limits proveBell
}

// canary is a notification that we send to ourselves: it proves that notifications arrive. Its payload is random, so that neither the
// canary of another instance, nor a forged one, nor a late one of ours counts.
type canary struct {
	payload string
	arrived Bell
}

// run runs the session. It returns why the session ended, and whether a canary has proven that it worked.
func (s *session) run(parent context.Context) (proven bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cancel(s.l.cfg.Source.Listen(ctx, s.opened, s.hear)) // the first cause wins
	}()
	cancel(s.prove(ctx))
	<-ended
	s.l.up.Store(false)
	if parent.Err() == nil {
		s.l.metrics.failures.WithLabelValues(s.failure).Inc()
	}
	return !s.proven.IsZero(), context.Cause(ctx)
}

// opened makes the Sink read all that is watched, because earlier notifications may have been missed.
func (s *session) opened() {
	s.l.metrics.connects.Inc()
	s.l.cfg.Sink.Resync()
	s.failure = failLost
	close(s.listening)
}

// hear takes one payload. Any role may have sent it, so it is only parsed and never believed.
func (s *session) hear(payload string) {
	s.received.Add(1)
	kind := notifyIgnored
	_, key := SplitRow(payload)
	switch {
	case payload == PayloadResync, strings.HasPrefix(key, bucketPrefix):
		kind = notifyResync
		if key != payload { // FEED:#N: a text key may look like that, and its change must not wait for the resync
			s.l.cfg.Sink.Notify(payload)
		}
		s.l.cfg.Sink.Resync()
	case strings.HasPrefix(payload, CanaryPrefix):
		kind = notifyCanary
		if c := s.inFlight.Load(); c != nil && payload == c.payload {
			c.arrived.Ring()
		} else if !s.l.Up() { // another instance's canary arrives: whatever was wrong may be over
			s.proveThrottle.Do(s.proveBell.Ring)
		}
	case payload != "" && len(payload) <= maxRow && s.l.cfg.Sink.Notify(payload):
		kind = notifyRow
	}
	s.l.metrics.notifications.WithLabelValues(kind).Inc()
}

// prove sends a canary every CanaryInterval. It returns ErrSilent when one does not come back, and nil when ctx is done.
func (s *session) prove(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.listening:
	}
	for {
		if err := s.canary(ctx); err != nil {
			s.failure = failSilent
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.proveBell:
		case <-time.After(s.l.cfg.CanaryInterval):
		}
		for !s.proven.IsZero() && s.l.cfg.Idle() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(idleCheck):
			}
		}
	}
}

// canary sends a canary and waits for it. When it cannot be sent, that proves nothing about the listening connection, which is kept. But
// after two intervals without proof, the listener no longer counts as up.
func (s *session) canary(ctx context.Context) error {
	cfg := &s.l.cfg
	c := &canary{payload: CanaryPrefix + rand.Text(), arrived: NewBell()}
	s.inFlight.Store(c)
	sendCtx, cancel := context.WithTimeout(ctx, cfg.CanaryTimeout)
	defer cancel()
	start := time.Now()
	if err := cfg.Source.Send(sendCtx, c.payload); err != nil {
		if time.Since(s.proven) > 2*(cfg.CanaryInterval+cfg.CanaryTimeout) && s.l.up.Swap(false) {
			cfg.Logger.Warn("no canary can be sent, so nobody knows whether notifications arrive; the safety net finds changes meanwhile", "error", err)
		}
		return nil
	}
	if err := s.awaitCanary(ctx, c, start); err != nil || ctx.Err() != nil {
		return err
	}
	s.l.metrics.canary.Observe(time.Since(start).Seconds())
	s.proven = time.Now()
	s.l.markProven()
	return nil
}

// awaitCanary waits for a canary. It returns ErrSilent when neither the canary nor any other notification came within CanaryTimeout. While
// others come, ours may be queued behind them, because any role can send a flood: then it waits up to maxCanaryTimeouts time-outs.
func (s *session) awaitCanary(ctx context.Context, c *canary, start time.Time) error {
	for before := s.received.Load(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-c.arrived:
			return nil
		case <-time.After(s.l.cfg.CanaryTimeout):
		}
		now, waited := s.received.Load(), time.Since(start)
		if now == before || waited >= maxCanaryTimeouts*s.l.cfg.CanaryTimeout {
			return fmt.Errorf("%w within %v", ErrSilent, waited.Round(time.Millisecond))
		}
		before = now
	}
}
