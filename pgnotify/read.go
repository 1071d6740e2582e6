package pgnotify

import (
	"context"
	"slices"
	"time"

	"auditstream/store"
)

// read makes one query for everything that is dirty and hands out what it found. After an error the ids are dirty again.
func (h *Hub) read(ctx context.Context) error {
	h.settleDoubt(ctx)
	found := h.find(ctx)
	batch := h.take()
	if len(batch) == 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.openAll(found)
		return nil
	}
	h.registerBatch(ctx, batch)
	ids := make([]int64, 0, len(batch))
	for id := range batch {
		ids = append(ids, id)
	}

	start := time.Now()
	readCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
	states, err := h.cfg.Loader.Audits(readCtx, ids)
	cancel()
	if ctx.Err() != nil {
		return ctx.Err() // stopping: whatever the read says is about that
	}
	h.metrics.observeRead(time.Since(start), len(ids), err)

	h.mu.Lock()
	defer h.mu.Unlock()
	h.logTurn(err)
	h.failure = err
	if err != nil {
		h.giveBack(batch)
		h.owners.again(found)
		return err
	}
	for _, state := range states {
		if m, ok := batch[state.ID]; ok {
			h.deliver(state, m)
			delete(batch, state.ID)
		}
	}
	for id, m := range batch { // what is left has no row
		h.deliver(&store.State{ID: id}, m)
	}
	h.openAll(found)
	return nil
}

func (h *Hub) take() map[int64]mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	batch := h.dirty
	h.dirty = make(map[int64]mark)
	if h.owners.take(batch) {
		h.ring()
	}
	h.takes++
	h.newcomers = 0
	return batch
}

func (h *Hub) giveBack(batch map[int64]mark) {
	for id, m := range batch {
		if _, ok := h.watched[id]; !ok {
			if !m.noticed.IsZero() {
				h.owners.suspect(id)
			}
			continue
		}
		now := h.dirty[id]
		if !m.noticed.IsZero() {
			now.noticed = m.noticed
		}
		now.resync = now.resync || m.resync
		h.dirty[id] = now
	}
}

// deliver hands a state to those who watch its audit. The caller holds mu.
func (h *Hub) deliver(state *store.State, m mark) {
	w := h.watched[state.ID]
	if w == nil {
		state.Noticed = m.noticed
		h.offer(state)
		if h.watched[state.ID] == nil && m.found {
			h.left() // registered in vain
		}
		return
	}
	if w.since >= h.takes { // nobody watched any more, and somebody does again, whose own read follows
		h.offer(state)
		return
	}
	first := w.last == nil
	changed := first || !w.last.Same(state)
	if !changed {
		state = w.last // already encoded
	} else {
		state.Noticed = m.noticed
		w.last = state
	}
	// The notification of what this read saw may have come while it was under way.
	announced := !m.noticed.IsZero() || !h.dirty[state.ID].noticed.IsZero()
	polled := h.heat.hot[state.ID]
	if changed && polled != nil {
		polled.changed = time.Now()
		h.heat.count(polled.changed)
	}
	if changed && !first && !announced && !m.resync && polled == nil {
		h.missed.suspect(state.ID)
	}
	for _, sub := range slices.Backward(w.subs) { // a group's may leave
		switch {
		case sub.open:
			if changed {
				h.put(sub, state)
			}
		// A subscriber that came after the batch was taken could be shown a state older than its request; its own read
		// follows.
		case sub.since < h.takes:
			sub.open = true
			h.put(sub, state)
			if sub.group != nil {
				sub.group.began()
			} else {
				close(sub.opened)
			}
		}
	}
	h.offer(state)
}

// put replaces what is in the slot. It never blocks: only the hub sends, with mu held. A terminal state that the stream
// has not taken stays: it must be seen, and the stream ends with it.
func (h *Hub) put(sub *subscription, state *store.State) {
	if sub.group != nil {
		h.putGroup(sub, state)
		return
	}
	select {
	case old := <-sub.slot:
		h.metrics.coalesced.Inc()
		if old.Terminal() {
			state = old
		}
	default:
	}
	sub.slot <- state
	if sub.wake != nil {
		sub.wake()
	}
}

// logTurn logs when reads begin to fail and when they work again, not each failure. The caller holds mu.
func (h *Hub) logTurn(err error) {
	switch {
	case err != nil && h.failure == nil:
		h.cfg.Logger.Error("database read failed; open streams stay open, reading is tried again", "error", err)
	case err == nil && h.failure != nil:
		h.cfg.Logger.Info("database reads work again")
	}
}
