package pgnotify

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"auditstream/internal/store"
)

const (
	// maxRead is how many rows one read is for: what is urgent waits for no more than that.
	maxRead = 500
	// readRetryMax is the longest time between a read that failed and the next.
	readRetryMax = time.Second
)

// batch is what one read is for.
type batch struct {
	keys    []store.Key
	entries []*entry
	routine bool   // a part of it is
	number  uint64 // Hub.reads
}

// read makes one query for what is dirty, the urgent first, and hands out what it found. It reports whether there was anything.
func (h *Hub) read(ctx context.Context) bool {
	delays := Backoff{longest: readRetryMax}
	for b := h.take(); len(b.keys) > 0; b = h.take() {
		start := time.Now()
		readCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
		states, err := h.cfg.Loader.Audits(readCtx, b.keys)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		took := time.Since(start)
		if b.routine {
			h.pace.spent += took
		}
		result := "ok"
		if err != nil {
			result = "error"
		}
		h.metrics.reads.WithLabelValues(result).Observe(took.Seconds())
		h.metrics.batch.Observe(float64(len(b.keys)))
		h.reading.Log(h.cfg.Logger, slog.LevelError, err, "database read failed; open streams stay open, reading is tried again", "database reads work again")
		if err == nil {
			h.deliver(b, states)
			return true
		}
		h.again(b, err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(delays.Next()):
		}
	}
	return false
}

// take takes a batch of what is dirty, the urgent first. A tenth is kept for each that is less urgent: with a stream of notifications
// that does not end it would wait for ever.
func (h *Hub) take() batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	b := batch{number: h.reads}
	for d := urgent; d > clean; d-- {
		full := maxRead - int(d-routine)*maxRead/10
		if len(b.keys) > 0 { // which are to wait for no more than that
			full = min(full, len(b.keys)+maxRead/10)
		}
		queue := h.dirty[d]
		for ; len(queue) > 0 && len(b.keys) < full; queue = queue[1:] {
			if e := queue[0]; e.dirty == d && h.entries[e.key] == e { // else it is more urgent by now, in another queue, or gone
				b.routine = b.routine || d == routine
				b.keys, b.entries = append(b.keys, e.key), append(b.entries, e)
				e.read, e.cause = e.cause, cause{}
			}
		}
		if h.dirty[d] = queue; len(queue) == 0 {
			h.dirty[d] = nil
		}
	}
	return b
}

// again marks a batch dirty whose read has failed.
func (h *Hub) again(b batch, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failure = err
	for _, e := range b.entries {
		if h.entries[e.key] == e {
			if !e.read.noticed.IsZero() {
				e.noticed = e.read.noticed
			}
			e.known = e.known || e.read.known
			h.soil(e, e.read.dirty)
			e.read = cause{}
		}
	}
}

// deliver hands out the states of a batch. Entries that nobody watches any more are left out, and those that somebody watches again: their
// own read follows.
func (h *Hub) deliver(b batch, states []*store.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failure = nil
	for _, state := range states {
		if e := h.entries[state.ID]; e != nil && e.read.dirty != clean {
			h.hand(e, state, b.number)
		}
	}
	for _, e := range b.entries { // what is left has no row
		if h.entries[e.key] == e && e.read.dirty != clean {
			h.hand(e, &store.State{ID: e.key}, b.number)
		}
	}
}

// hand gives a state to those who watch its row. The caller holds mu.
func (h *Hub) hand(e *entry, state *store.State, read uint64) {
	if !state.Found && state.Err == nil {
		if last := e.state.WithoutRow(); last != nil {
			state = last
		}
	}
	first := e.state == nil
	changed := first || !e.state.Same(state)
	news := changed && !first
	noticed := !e.read.noticed.IsZero()
	if changed {
		state.Noticed = e.read.noticed
		e.state = state
	}
	if noticed && time.Since(e.counted) >= countOnce || news && h.pace.flooded() { // where nothing is announced
		h.pace.count.Add(1)
		e.counted = time.Now()
	}
	// Its notification may still be on its way, or have come during the read.
	if news && !noticed && e.noticed.IsZero() && !e.read.known && e.wanted > 0 && e.silent.IsZero() && !h.pace.flooded() && h.cfg.Announcer.Announced(e.key) {
		e.silent = time.Now()
	}
	e.read = cause{}
	for s, m := range e.members {
		if m.open && changed || !m.open && m.since < read {
			h.show(s, m, e.state)
		}
	}
	h.offer(e)
	e.finds = slices.DeleteFunc(e.finds, func(f *find) bool { return f.hasRead(read) })
	h.forget(e)
}

// show gives a subscription the state of one of its rows. The caller holds mu, and calls forget.
func (h *Hub) show(s *Subscription, m *member, state *store.State) {
	s.put(m, state)
	if !m.open {
		m.open = true
		if s.waiting--; s.waiting == 0 && s.owners == nil {
			s.begin()
		}
	}
	last := state.Terminal() && (len(s.members) > 1 || s.owners != nil)
	if last || s.owners != nil && state.Err == nil && !s.owns(state) {
		k := slices.Index(s.members, m)
		s.members = slices.Delete(s.members, k, k+1)
		h.leave(s, m.entry)
	}
}
