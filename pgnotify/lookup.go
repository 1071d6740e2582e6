package pgnotify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"auditstream/store"
)

// maxLookup is how many audits one query of lookups asks for.
const maxLookup = 1000

// lookups read audits for those who only ask once. They register nothing, and whoever asks during a read is in the next one, so
// that however many ask, one read goes on.
type lookups struct {
	read func(ctx context.Context, ids []int64) ([]*store.State, error)

	mu      sync.Mutex
	next    *lookup // of those who wait for the read that goes on to end; nil: nobody
	reading bool
}

// lookup is what several ask for together.
type lookup struct {
	ids    map[int64]struct{}
	done   chan struct{} // closed when the rest is there
	states map[int64]*store.State
	err    error
}

// Read returns the committed state of an audit, read after the call, also when there is no such row. Nobody is told that
// somebody watches it: the triggers do not ring for it, and nothing is written. Safe for concurrent use, also without Run.
func (h *Hub) Read(ctx context.Context, id int64) (*store.State, error) {
	l := h.lookups.join(id)
	select {
	case <-l.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("read: %w", context.Cause(ctx))
	}
	if l.err != nil {
		return nil, fmt.Errorf("read: %w", l.err)
	}
	if state, ok := l.states[id]; ok {
		return state, nil
	}
	return &store.State{ID: id}, nil
}

func (l *lookups) join(id int64) *lookup {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &lookup{ids: make(map[int64]struct{}), done: make(chan struct{})}
	}
	l.next.ids[id] = struct{}{}
	joined := l.next
	if !l.reading {
		l.reading = true
		go l.run()
	}
	return joined
}

// run reads until nobody waits any more.
func (l *lookups) run() {
	for {
		l.mu.Lock()
		now := l.next
		l.next = nil
		l.reading = now != nil
		l.mu.Unlock()
		if now == nil {
			return
		}
		now.states = make(map[int64]*store.State, len(now.ids))
		for ids := range slices.Chunk(slices.Collect(maps.Keys(now.ids)), maxLookup) {
			states, err := l.read(context.Background(), ids)
			for _, state := range states {
				now.states[state.ID] = state
			}
			now.err = err
			if err != nil {
				break
			}
		}
		close(now.done)
	}
}

// lookUp is one query of lookups.
func (h *Hub) lookUp(ctx context.Context, ids []int64) ([]*store.State, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
	defer cancel()
	states, err := h.cfg.Loader.Audits(ctx, ids)
	h.metrics.observeRead(time.Since(start), len(ids), err)
	return states, err
}
