package pgnotify

import (
	"context"
	"time"
)

const (
	// crowdGap is how close together subscribers come that are a crowd, such as everybody after a restart.
	crowdGap = 5 * time.Millisecond
	// crowdWait is how long the first read of a crowd waits at most, so it reads ten times a second however many come.
	crowdWait = 100 * time.Millisecond
)

// gather waits while more subscribers keep coming, so that they share a read. One who comes alone, or one after the other,
// does not wait, and neither does a change.
func (h *Hub) gather(ctx context.Context) {
	h.mu.Lock()
	crowd := h.newcomers > 1
	h.mu.Unlock()
	if !crowd {
		return
	}
	end := time.NewTimer(crowdWait)
	defer end.Stop()
	quiet := time.NewTimer(crowdGap)
	defer quiet.Stop()
	for {
		select {
		case <-h.arrived:
			quiet.Reset(crowdGap)
		case <-h.wake: // the read that follows is for the change too
			return
		case <-quiet.C:
			return
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
