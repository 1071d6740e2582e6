package next

import (
	"context"
	"slices"
	"sync"

	"auditstream/store"
)

// Subscription is one stream's place in the hub, for one audit or several. Its methods are safe for concurrent use.
type Subscription struct {
	hub    *Hub
	wake   func()
	opened chan struct{} // closed when the first states are there
	owners []store.Owner // whose audits it is for, all of them; nil: those that were asked for

	members []*member // guarded by Hub.mu, as are the following
	waiting int       // members without a first state
	open    bool      // opened is closed
	wanted  bool      // Confirm was called
	gone    bool      // Cancel was called

	mu   sync.Mutex
	slot []*store.State // the newest state of each audit that was not taken yet, in the order in which they changed
}

// member is a subscription's place at one audit.
type member struct {
	sub     *Subscription
	entry   *entry
	index   int    // in entry.members
	since   uint64 // Hub.reads when it came: an earlier read may be older than its question
	settled uint64 // the registrar's word at that time
	open    bool   // the first state is in the slot, or has been
}

// Subscribe watches audits, each named once, as one subscriber. It returns once the first state of each, read after the call, can
// be taken, also where there is no such row. Nobody is told yet that somebody watches: see Confirm. The caller calls Cancel, once.
//
// wake, which may be nil, is called whenever there is something to take, from the first on and not after Cancel. It must not
// block, nor call the hub.
//
// When ctx ends before, the error says so, with the cause of the last read that failed.
func (h *Hub) Subscribe(ctx context.Context, ids []store.Key, wake func()) (*Subscription, error) {
	s := &Subscription{hub: h, wake: wake, opened: make(chan struct{})}
	h.mu.Lock()
	for _, id := range ids {
		h.join(s, id)
	}
	s.waiting = len(ids)
	h.mu.Unlock()
	return s, h.await(ctx, s)
}

func (h *Hub) await(ctx context.Context, s *Subscription) error {
	select {
	case <-s.opened:
		return nil
	case <-ctx.Done():
		s.Cancel()
		return h.notOpened(ctx)
	}
}

// join makes a subscription one of those who watch an audit, which is read for it. The caller holds mu.
func (h *Hub) join(s *Subscription, id store.Key) *member {
	e := h.entries[id]
	if e == nil {
		e = h.add(id)
	}
	m := h.attach(s, e)
	h.soil(e, urgent)
	return m
}

// attach makes a subscription a member of an entry. The caller holds mu.
func (h *Hub) attach(s *Subscription, e *entry) *member {
	m := &member{sub: s, entry: e, index: len(e.members), since: h.reads, settled: h.cfg.Registrar.Settled(e.id)}
	e.members = append(e.members, m)
	s.members = append(s.members, m)
	return m
}

// Take returns the newest state of each audit that changed since the last call, nil when none did. A terminal state is not
// replaced by another: it is the last that is shown of its audit.
func (s *Subscription) Take() []*store.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := s.slot
	s.slot = nil
	return states
}

// Confirm says that what was asked for is the viewer's: from now on writers are told that somebody watches it, and what has
// changed since the first read is read. It does not block.
func (s *Subscription) Confirm() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.gone || s.wanted {
		return
	}
	s.wanted = true
	for _, m := range s.members {
		s.hub.want(m)
	}
}

// want counts a member whose audit is its viewer's. The caller holds mu.
func (h *Hub) want(m *member) {
	m.entry.wanted++
	if h.cfg.Registrar.Want(m.entry.id, m.settled) {
		return
	}
	m.entry.known = true // a change of before had to be announced to nobody
	h.soil(m.entry, urgent)
}

// Cancel ends the subscription. It does not block.
func (s *Subscription) Cancel() {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	for _, m := range s.members {
		h.part(m)
	}
	s.members = nil
	if h.owned.remove(s) {
		h.cfg.Registrar.Leave(Beginning)
	}
}

// leave ends one audit of a subscription. The caller holds mu.
func (h *Hub) leave(m *member) {
	m.sub.members = slices.DeleteFunc(m.sub.members, func(other *member) bool { return other == m })
	h.part(m)
}

// part takes a member out of its entry, and forgets an entry without any. The caller holds mu.
func (h *Hub) part(m *member) {
	e := m.entry
	last := len(e.members) - 1
	e.members[m.index] = e.members[last]
	e.members[m.index].index = m.index
	e.members[last] = nil
	e.members = e.members[:last]
	if m.sub.wanted {
		if e.wanted--; e.wanted == 0 {
			h.cfg.Registrar.Leave(e.id)
		}
	}
	if last == 0 {
		delete(h.entries, e.id) // a queue that has it passes it over
	}
}

// put is how a state reaches a subscription: it replaces one of the same audit that was not taken yet. The caller holds Hub.mu.
func (s *Subscription) put(state *store.State) {
	s.mu.Lock()
	k := slices.IndexFunc(s.slot, func(old *store.State) bool { return old.ID == state.ID })
	switch {
	case k < 0:
		s.slot = append(s.slot, state)
	case !s.slot[k].Terminal():
		s.slot[k] = state
	}
	s.mu.Unlock()
	if s.wake != nil {
		s.wake()
	}
}

// holdsEnd reports whether the terminal state of an audit was not taken yet.
func (s *Subscription) holdsEnd(id store.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.slot, func(state *store.State) bool { return state.ID == id && state.Terminal() })
}

// begin tells a subscription that its first states are there. The caller holds Hub.mu.
func (s *Subscription) begin() {
	if !s.open {
		s.open = true
		close(s.opened)
	}
}
