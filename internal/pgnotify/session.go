package pgnotify

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// session is the life of one connection: open it, hear, until it breaks or falls silent.
type session struct {
	l       *Listener
	ready   chan struct{}          // closed when what is sent is received
	failure string                 // what its end would be; prove's once it is ready
	sent    atomic.Pointer[canary] // the one that is on its way
	heard   atomic.Uint64          // notifications of any kind
	proven  time.Time              // when a canary last came back; belongs to prove
	again   Bell                   // somebody else's canary was heard
	agains  Throttle
}

// canary is a notification that only says that notifications arrive. Its payload is random, so that neither another
// instance's nor a forged one counts; nor does an earlier one of ours that was thought not to have been sent.
type canary struct {
	payload string
	came    Bell
}

// run returns why the session ended, and whether it was proven to work.
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

// opened has all that is watched read: whatever was committed before may have been missed.
func (s *session) opened() {
	s.l.metrics.connects.Inc()
	s.l.cfg.Sink.Resync()
	s.failure = failLost
	close(s.ready)
}

// hear does what a payload asks for.
func (s *session) hear(payload string) {
	s.heard.Add(1)
	kind := notifyIgnored
	_, key := SplitRow(payload)
	switch {
	case payload == PayloadResync, strings.HasPrefix(key, bucketPrefix):
		kind = notifyResync
		if key != payload { // a text key may look like a bucket, and its change waits for no resync
			s.l.cfg.Sink.Notify(payload)
		}
		s.l.cfg.Sink.Resync()
	case strings.HasPrefix(payload, CanaryPrefix):
		kind = notifyCanary
		if c := s.sent.Load(); c != nil && payload == c.payload {
			c.came.Ring()
		} else if !s.l.Up() { // whatever was wrong may be over
			s.agains.Do(s.again.Ring)
		}
	case payload != "" && len(payload) <= maxRow && s.l.cfg.Sink.Notify(payload):
		kind = notifyRow
	}
	s.l.metrics.notifications.WithLabelValues(kind).Inc()
}

// prove sends a canary every interval and returns ErrSilent when one does not come back.
func (s *session) prove(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ready:
	}
	for {
		if err := s.canary(ctx); err != nil {
			s.failure = failSilent
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
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

// canary sends one and waits for it. One that cannot be sent proves nothing about the connection, which is kept; but when no proof
// has come for as long as two more could have been sent, nothing can be said to be up.
func (s *session) canary(ctx context.Context) error {
	cfg := &s.l.cfg
	c := &canary{payload: CanaryPrefix + rand.Text(), came: NewBell()}
	s.sent.Store(c)
	sendCtx, cancel := context.WithTimeout(ctx, cfg.CanaryTimeout)
	defer cancel()
	start := time.Now()
	if err := cfg.Source.Send(sendCtx, c.payload); err != nil {
		if time.Since(s.proven) > 2*(cfg.CanaryInterval+cfg.CanaryTimeout) && s.l.up.Swap(false) {
			cfg.Logger.Warn("no canary can be sent, so it is not known whether notifications arrive; the safety net finds changes meanwhile", "error", err)
		}
		return nil
	}
	if err := s.await(ctx, c, start); err != nil || ctx.Err() != nil {
		return err
	}
	s.l.metrics.canary.Observe(time.Since(start).Seconds())
	s.proven = time.Now()
	s.l.arrive()
	return nil
}

// await waits for a canary. The error says that it did not come within the time-out, in which no other notification came either.
// While others come, ours may be behind them, as any role can send a flood; but they do not vouch for it for ever.
func (s *session) await(ctx context.Context, c *canary, start time.Time) error {
	for before := s.heard.Load(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-c.came:
			return nil
		case <-time.After(s.l.cfg.CanaryTimeout):
		}
		now, waited := s.heard.Load(), time.Since(start)
		if now == before || waited >= maxCanaryTimeouts*s.l.cfg.CanaryTimeout {
			return fmt.Errorf("%w within %v", ErrSilent, waited.Round(time.Millisecond))
		}
		before = now
	}
}
