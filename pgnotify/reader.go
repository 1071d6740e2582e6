package pgnotify

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"auditstream/store"
)

const (
	// maxRead is how many rows one read is for: what is urgent waits for no more than that.
	maxRead      = 500
	readRetryMin = 100 * time.Millisecond
	readRetryMax = time.Second
)

// batch is what one read is for.
type batch struct {
	keys    []store.Key
	entries map[store.Key]dirtied
	routine bool   // a part of it is
	number  uint64 // Hub.reads
}

// dirtied is why an entry was dirty when it was taken.
type dirtied struct {
	*entry
	was        dirt
	wasNoticed time.Time
	wasKnown   bool
}

// read makes one query for what is dirty, the urgent first, and hands out what it found. It reports whether there was anything.
func (h *Hub) read(ctx context.Context) bool {
	b := h.take()
	for delay := readRetryMin; len(b.keys) > 0; delay = min(2*delay, readRetryMax) {
		start := time.Now()
		readCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
		states, err := h.cfg.Loader.Audits(readCtx, b.keys)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		took := time.Since(start)
		if b.routine {
			h.pace.took(took)
		}
		h.metrics.observeRead(took, len(b.keys), err)
		h.logTurn(err)
		if err == nil {
			h.deliver(b, states)
			return true
		}
		h.again(b)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(delay/2 + rand.N(delay/2)):
		}
		b = h.take()
	}
	return false
}

// take takes a batch of what is dirty, the urgent first. A tenth is kept for each that is less urgent: with a stream of notifications
// that does not end it would wait for ever.
func (h *Hub) take() batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	b := batch{entries: make(map[store.Key]dirtied), number: h.reads}
	for d := urgent; d > clean; d-- {
		full := maxRead - int(d-routine)*maxRead/10
		if len(b.keys) > 0 { // which are to wait for no more than that
			full = min(full, len(b.keys)+maxRead/10)
		}
		h.dirty[d] = h.takeFrom(&b, d, full)
	}
	return b
}

// takeFrom moves a queue's first entries into the batch until it is full, and returns the rest. One that has become more urgent is
// in another queue, too.
func (h *Hub) takeFrom(b *batch, d dirt, full int) []*entry {
	for k, e := range h.dirty[d] {
		if len(b.keys) >= full {
			return h.dirty[d][k:]
		}
		if e.dirty != d || h.entries[e.key] != e {
			continue
		}
		b.routine = b.routine || d == routine
		b.keys = append(b.keys, e.key)
		b.entries[e.key] = dirtied{e, d, e.noticed, e.known}
		e.dirty, e.noticed, e.known = clean, time.Time{}, false
	}
	return nil
}

// again marks a batch dirty whose read has failed.
func (h *Hub) again(b batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, e := range b.entries {
		if h.entries[key] != e.entry {
			continue
		}
		if !e.wasNoticed.IsZero() {
			e.noticed = e.wasNoticed
		}
		e.known = e.known || e.wasKnown
		h.soil(e.entry, e.was)
	}
}

// deliver hands out the states of a batch.
func (h *Hub) deliver(b batch, states []*store.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, state := range states {
		if e, ok := b.entries[state.ID]; ok {
			h.hand(e, state, b.number)
			delete(b.entries, state.ID)
		}
	}
	for key, e := range b.entries { // what is left has no row
		h.hand(e, &store.State{ID: key}, b.number)
	}
}

// hand gives a state to those who watch its row. The caller holds mu.
func (h *Hub) hand(e dirtied, state *store.State, read uint64) {
	if h.entries[e.key] != e.entry {
		return // nobody watches any more, or somebody does again, whose own read follows
	}
	first := e.state == nil
	changed := first || !e.state.Same(state)
	if changed {
		state.Noticed = e.wasNoticed
		e.state = state
	}
	announced := !e.wasNoticed.IsZero() && time.Since(e.counted) >= countOnce
	if h.pace.read(announced, changed && !first) {
		e.counted = time.Now()
	}
	if changed && !first {
		h.suspect(e)
	}
	for _, m := range slices.Backward(e.members) { // of a group some may leave
		if m.open && changed || !m.open && m.since < read {
			h.show(m, e.state)
		}
	}
	h.offer(e.entry)
	e.finds = slices.DeleteFunc(e.finds, func(f *find) bool { return f.hasRead(read) })
	h.forget(e.entry)
}

// show gives a member its state. The caller holds mu.
func (h *Hub) show(m *member, state *store.State) {
	s := m.sub
	m.put(state)
	if !m.open {
		m.open = true
		if s.waiting--; s.waiting == 0 && s.owners == nil {
			s.begin()
		}
	}
	switch {
	case s.owners != nil && state.Err == nil && !s.owns(state):
		h.part(m)
	case state.Terminal() && (len(s.members) > 1 || s.owners != nil):
		h.part(m)
	}
}

// logTurn logs when reads begin to fail and when they work again, not each failure.
func (h *Hub) logTurn(err error) {
	h.mu.Lock()
	before := h.failure
	h.failure = err
	h.mu.Unlock()
	switch { // without the lock, for which everybody waits
	case err != nil && before == nil:
		h.cfg.Logger.Error("database read failed; open streams stay open, reading is tried again", "error", err)
	case err == nil && before != nil:
		h.cfg.Logger.Info("database reads work again")
	}
}
