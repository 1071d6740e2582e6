package next

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"auditstream/store"
)

const (
	// maxRead is how many audits one read is for: what is urgent waits for no more than that.
	maxRead      = 500
	readRetryMin = 100 * time.Millisecond
	readRetryMax = time.Second
)

// batch is what one read is for.
type batch struct {
	ids     []store.Key
	entries map[store.Key]*entry
	number  uint64 // Hub.reads
	what    map[store.Key]notice
}

// notice is why an entry was dirty when it was taken.
type notice struct {
	noticed time.Time
	known   bool
}

// read makes one query for what is dirty, the urgent first, and hands out what it found. It reports whether there was anything.
func (h *Hub) read(ctx context.Context) bool {
	b := h.take()
	if len(b.ids) == 0 {
		return false
	}
	for delay := readRetryMin; ; delay = min(2*delay, readRetryMax) {
		start := time.Now()
		readCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
		states, err := h.cfg.Loader.Audits(readCtx, b.ids)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		h.pace.took(time.Since(start))
		h.logTurn(err)
		if err == nil {
			h.deliver(b, states)
			return true
		}
		h.again(&b)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(delay/2 + rand.N(delay/2)):
		}
		if b = h.take(); len(b.ids) == 0 {
			return true
		}
	}
}

// take takes a batch of what is dirty.
func (h *Hub) take() batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	b := batch{entries: make(map[store.Key]*entry), what: make(map[store.Key]notice), number: h.reads}
	h.reading = b.entries
	h.urgent = h.takeFrom(&b, h.urgent, urgent)
	if len(b.ids) == 0 {
		h.routine = h.takeFrom(&b, h.routine, routine)
	}
	if len(b.ids) == 0 {
		h.reading = nil
		h.owned.allRead()
	}
	return b
}

// takeFrom moves a queue's first entries into the batch, and returns the rest. One that has become more urgent is in the other
// queue, too.
func (h *Hub) takeFrom(b *batch, queue []*entry, d dirt) []*entry {
	for k, e := range queue {
		if len(b.ids) == maxRead {
			return queue[k:]
		}
		if e.dirty != d || h.entries[e.id] != e {
			continue
		}
		b.ids = append(b.ids, e.id)
		b.entries[e.id] = e
		b.what[e.id] = notice{e.noticed, e.known}
		e.dirty, e.noticed, e.known = clean, time.Time{}, false
	}
	return nil
}

// again marks a batch dirty whose read has failed.
func (h *Hub) again(b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, e := range b.entries {
		if h.entries[id] != e {
			continue
		}
		was := b.what[id]
		if !was.noticed.IsZero() {
			e.noticed = was.noticed
		}
		e.known = e.known || was.known
		h.soil(e, urgent)
	}
}

// deliver hands out the states of a batch.
func (h *Hub) deliver(b batch, states []*store.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, state := range states {
		if e, ok := b.entries[state.ID]; ok {
			h.hand(e, state, b)
			delete(b.entries, state.ID)
		}
	}
	for id, e := range b.entries { // what is left has no row
		h.hand(e, &store.State{ID: id}, b)
	}
	h.reading = nil
	if len(h.urgent) == 0 {
		h.owned.allRead()
	}
}

// hand gives a state to those who watch its audit. The caller holds mu.
func (h *Hub) hand(e *entry, state *store.State, b batch) {
	if h.entries[e.id] != e {
		return // nobody watches any more, or somebody does again, whose own read follows
	}
	was := b.what[e.id]
	first := e.state == nil
	changed := first || !e.state.Same(state)
	if changed {
		state.Noticed = was.noticed
		e.state = state
	}
	announced := !was.noticed.IsZero() || !e.noticed.IsZero() // it may have come while the read was under way
	if changed && !first {
		h.pace.changed()
		if !announced && !was.known && e.wanted > 0 && !h.pace.flooded() {
			h.missed.suspect(e)
		}
	}
	for _, m := range slices.Backward(e.members) { // of a group some may leave
		switch {
		case m.open && changed, !m.open && m.since < b.number:
			h.show(m, e.state)
		}
	}
	h.offer(e)
	if len(e.members) == 0 {
		delete(h.entries, e.id) // it was read because it might have begun
	}
}

// show gives a member its state. The caller holds mu.
func (h *Hub) show(m *member, state *store.State) {
	s := m.sub
	s.put(state)
	if !m.open {
		m.open = true
		if s.waiting--; s.waiting == 0 && s.owners == nil {
			s.begin()
		}
	}
	if state.Terminal() || s.owners != nil && state.Err == nil && !s.owns(state) {
		if len(s.members) > 1 || s.owners != nil {
			h.leave(m)
		}
	}
}

// logTurn logs when reads begin to fail and when they work again, not each failure.
func (h *Hub) logTurn(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil && h.failure == nil:
		h.cfg.Logger.Error("database read failed; open streams stay open, reading is tried again", "error", err)
	case err == nil && h.failure != nil:
		h.cfg.Logger.Info("database reads work again")
	}
	h.failure = err
}
