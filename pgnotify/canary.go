package pgnotify

import (
	"context"
	"crypto/rand"
	"time"
)

// maxCanaryTimeouts is how many times its time-out a canary may take while other notifications come.
const maxCanaryTimeouts = 5

// Canary is a notification that only says that notifications arrive. Its payload is random, so that neither another
// instance's nor a forged one counts; nor does an earlier one of ours that was thought not to have been sent.
type Canary struct {
	Payload string
	Heard   chan struct{} // capacity 1: it came back
}

// NewCanary returns one to be sent.
func NewCanary() *Canary {
	return &Canary{Payload: CanaryPrefix + rand.Text(), Heard: make(chan struct{}, 1)}
}

// CameBack ends Await. It does not block, and is safe for concurrent use.
func (c *Canary) CameBack() {
	select {
	case c.Heard <- struct{}{}:
	default:
	}
}

// Await waits for a canary sent at start and reports whether it came back; not when ctx ends first. The error says that it did
// not within the time-out, in which heard, the number of notifications of any kind, did not grow. While others come, ours may
// be behind them, as any role can send a flood; but they do not vouch for it for ever.
func (c *Canary) Await(ctx context.Context, start time.Time, timeout time.Duration, heard func() uint64) (came bool, err error) {
	for before := heard(); ; {
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(timeout):
			now := heard()
			if waited := time.Since(start); now == before || waited >= maxCanaryTimeouts*timeout {
				return false, silentAfter(waited.Round(time.Millisecond))
			}
			before = now
		case <-c.Heard:
			return true, nil
		}
	}
}
