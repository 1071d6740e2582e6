package pgnotify

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"auditstream/internal/store"
)

const (
	// maxRead is how many rows one read asks for. Larger means that an urgent row waits longer for the read before it; smaller, that
	// many rows take more queries.
	maxRead = 500
	// readRetryMax is the longest delay between a failed read and the next.
	readRetryMax = time.Second
)

// batch is what one read asks for.
type batch struct {
	keys    []store.Key
	entries []*entry
	routine bool   // some entries are in it because of the safety net
	number  uint64 // Hub.reads when it began
}

// read makes one query for dirty entries, the urgent ones first, and hands out the result. It retries a failed query until ctx is done. It
// reports whether anything was dirty.
func (h *Hub) read(ctx context.Context) bool {
	delays := Backoff{longest: readRetryMax}
	for b := h.nextBatch(); len(b.keys) > 0; b = h.nextBatch() {
		start := time.Now()
		readCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
		states, err := h.cfg.Loader.Rows(readCtx, b.keys)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		took := time.Since(start)
		if b.routine {
			h.pace.roundCost += took
		}
		result := "ok"
		if err != nil {
			result = "error"
		}
		h.metrics.reads.WithLabelValues(result).Observe(took.Seconds())
		h.metrics.batch.Observe(float64(len(b.keys)))
		h.readTrouble.Log(h.cfg.Logger, slog.LevelError, err, "database read failed, trying again; open streams stay open", "database reads work again")
		if err == nil {
			h.deliver(b, states)
			return true
		}
		h.requeue(b, err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(delays.Next()):
		}
	}
	return false
}

// nextBatch takes entries out of the dirty queues, the urgent ones first. It keeps a tenth of the batch for each lower urgency: otherwise an
// endless stream of notifications would keep them waiting for ever.
func (h *Hub) nextBatch() batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	b := batch{number: h.reads}
	for d := urgent; d > clean; d-- {
		full := maxRead - int(d-routine)*maxRead/10
		if len(b.keys) > 0 { // more urgent entries wait for this read, so add only a tenth
			full = min(full, len(b.keys)+maxRead/10)
		}
		queue := h.dirty[d]
		for ; len(queue) > 0 && len(b.keys) < full; queue = queue[1:] {
			if e := queue[0]; e.dirty == d && h.entries[e.key] == e { // otherwise it was dropped, or is in a more urgent queue by now
				b.routine = b.routine || d == routine
				b.keys, b.entries = append(b.keys, e.key), append(b.entries, e)
				e.reading, e.cause = e.cause, cause{}
			}
		}
		if h.dirty[d] = queue; len(queue) == 0 {
			h.dirty[d] = nil
		}
	}
	return b
}

// requeue marks the entries of a failed read dirty again.
func (h *Hub) requeue(b batch, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readError = err
	for _, e := range b.entries {
		if h.entries[e.key] == e {
			if !e.reading.noticed.IsZero() {
				e.noticed = e.reading.noticed
			}
			e.excused = e.excused || e.reading.excused
			h.markDirty(e, e.reading.dirty)
			e.reading = cause{}
		}
	}
}

// deliver hands out the states of a batch. It skips an entry that was dropped meanwhile, and also a new entry of the same key: that one
// has its own read.
func (h *Hub) deliver(b batch, states []*store.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readError = nil
	for _, state := range states {
		if e := h.entries[state.ID]; e != nil && e.reading.dirty != clean {
			h.handOut(e, state, b.number)
		}
	}
	for _, e := range b.entries { // the entries that are left have no row
		if h.entries[e.key] == e && e.reading.dirty != clean {
			h.handOut(e, &store.State{ID: e.key}, b.number)
		}
	}
}

// handOut gives a state to the members of its entry, and counts what it says about the notifications. The caller holds mu.
func (h *Hub) handOut(e *entry, state *store.State, read uint64) {
	if !state.Found && state.Err == nil {
		if last := e.state.WithoutRow(); last != nil {
			state = last
		}
	}
	first := e.state == nil
	changed := first || !e.state.Same(state)
	news := changed && !first
	noticed := !e.reading.noticed.IsZero()
	if changed {
		state.Noticed = e.reading.noticed
		e.state = state
	}
	if noticed && time.Since(e.lastCounted) >= duplicateWindow || news && h.pace.flooded() { // in a flood nothing is announced
		h.pace.changes.Add(1)
		e.lastCounted = time.Now()
	}
	// The change was not announced before the read. Its notification may have come during the read (then it is not missed), or may still
	// be on its way: startRound decides after announceGrace.
	if news && !noticed && e.noticed.IsZero() && !e.reading.excused && e.confirmed > 0 && e.unannounced.IsZero() && !h.pace.flooded() &&
		h.cfg.Announcer.Announced(e.key) {
		e.unannounced = time.Now()
	}
	e.reading = cause{}
	for s, m := range e.members {
		if m.started && changed || !m.started && m.since < read {
			h.showState(s, m, e.state)
		}
	}
	h.offerToOwners(e)
	e.searches = slices.DeleteFunc(e.searches, func(f *ownerSearch) bool { return f.countRead(read) })
	h.dropUnwatched(e)
}

// showState gives a subscription the state of one of its rows, and removes the row after its last one: it has ended, or it is not the
// owner's any more. The caller holds mu, and calls dropUnwatched.
func (h *Hub) showState(s *Subscription, m *member, state *store.State) {
	s.put(m, state)
	if !m.started {
		m.started = true
		if s.waiting--; s.waiting == 0 && s.owners == nil {
			s.setReady()
		}
	}
	last := state.Terminal() && (len(s.members) > 1 || s.owners != nil)
	if last || s.owners != nil && state.Err == nil && !s.owns(state) {
		k := slices.Index(s.members, m)
		s.members = slices.Delete(s.members, k, k+1)
		h.removeMember(s, m.entry)
	}
}
