package pgnotify

import (
	"context"
	"sync"

	"auditstream/store"
)

// Subscription is one stream's place in the hub, for one row or several. Its methods are safe for concurrent use.
type Subscription struct {
	hub    *Hub
	wake   func()
	opened chan struct{} // closed when the first states are there
	owners []store.Owner // whose rows it is for, all of them; nil: those that were asked for

	members []*member // guarded by Hub.mu, as are the following
	waiting int       // members without a first state
	open    bool      // opened is closed
	wanted  bool      // Confirm was called
	gone    bool      // Cancel was called

	mu   sync.Mutex
	slot []*store.State // the newest state of each row that was not taken yet, in the order in which they changed
	ends map[store.Key]struct{}
	take uint64 // how many times the slot was taken
}

// member is a subscription's place at one row.
type member struct {
	sub   *Subscription
	entry *entry
	index int    // in entry.members
	place int    // in sub.members
	since uint64 // Hub.reads when it came: an earlier read may be older than its question
	open  bool   // the first state is in the slot, or has been
	at    int    // of the newest state in sub.slot, when take is sub's
	take  uint64
}

// Subscribe watches rows, each named once, as one subscriber. It returns once the first state of each, read after the call, can
// be taken, also where there is no such row. Nobody is told yet that somebody watches: see Confirm. The caller calls Cancel, once.
//
// wake, which may be nil, is called whenever there is something to take, from the first on and not after Cancel. It must not
// block, nor call the hub.
//
// When ctx ends before, the error says so, with the cause of the last read that failed.
func (h *Hub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (*Subscription, error) {
	s := &Subscription{hub: h, wake: wake, opened: make(chan struct{}), take: 1}
	h.mu.Lock()
	for _, key := range keys {
		e := h.entries[key]
		if e == nil {
			e = h.add(key)
		}
		h.attach(s, e)
		h.soil(e, urgent)
	}
	s.waiting = len(keys)
	h.mu.Unlock()
	return s, h.await(ctx, s)
}

func (h *Hub) await(ctx context.Context, s *Subscription) error {
	select {
	case <-s.opened:
		return nil
	case <-ctx.Done():
		s.Cancel()
		return h.notOpened(ctx, s)
	}
}

// attach makes a subscription a member of an entry. The caller holds mu.
func (h *Hub) attach(s *Subscription, e *entry) *member {
	m := &member{sub: s, entry: e, index: len(e.members), place: len(s.members), since: h.reads}
	e.members = append(e.members, m)
	s.members = append(s.members, m)
	return m
}

// Take returns the newest state of each row that changed since the last call, nil when none did. A terminal state is not
// replaced by another: it is the last that is shown of its row.
func (s *Subscription) Take() []*store.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := s.slot
	s.slot = nil
	clear(s.ends)
	s.take++
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
		s.hub.want(m.entry)
	}
}

// want counts a member whose row is its viewer's. The caller holds mu.
func (h *Hub) want(e *entry) {
	if e.wanted++; e.wanted == 1 {
		h.announcer.Want(e.key)
	}
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
	for len(s.members) > 0 {
		m := s.members[len(s.members)-1]
		h.part(m)
		h.forget(m.entry)
	}
	if h.owned.remove(s) {
		h.announcer.Leave(Beginning)
	}
}

// part ends one row of a subscription. The caller holds mu, and calls forget.
func (h *Hub) part(m *member) {
	s, e := m.sub, m.entry
	last := len(s.members) - 1
	s.members[m.place] = s.members[last]
	s.members[m.place].place = m.place
	s.members[last] = nil
	s.members = s.members[:last]

	last = len(e.members) - 1
	e.members[m.index] = e.members[last]
	e.members[m.index].index = m.index
	e.members[last] = nil
	e.members = e.members[:last]
	if s.wanted {
		if e.wanted--; e.wanted == 0 {
			h.announcer.Leave(e.key)
		}
	}
}

// forget drops an entry that nobody watches, unless a find waits for it, or it may have begun. A queue that has it passes it over.
// The caller holds mu.
func (h *Hub) forget(e *entry) {
	mayHaveBegun := !e.noticed.IsZero() && h.owned.mayBegin()
	if len(e.members) == 0 && len(e.finds) == 0 && !mayHaveBegun {
		delete(h.entries, e.key)
	}
}

// put is how a state reaches a subscription: it replaces one of the same row that was not taken yet. The caller holds Hub.mu.
func (m *member) put(state *store.State) {
	s := m.sub
	s.mu.Lock()
	switch {
	case m.take != s.take:
		m.take, m.at = s.take, len(s.slot)
		s.slot = append(s.slot, state)
	case !s.slot[m.at].Terminal():
		s.hub.metrics.coalesced.Inc()
		s.slot[m.at] = state
	}
	if s.owners != nil && state.Terminal() {
		if s.ends == nil {
			s.ends = make(map[store.Key]struct{})
		}
		s.ends[state.ID] = struct{}{}
	}
	s.mu.Unlock()
	if s.wake != nil {
		s.wake()
	}
}

// holdsEnd reports whether the terminal state of an owner's row was not taken yet.
func (s *Subscription) holdsEnd(key store.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ends := s.ends[key]
	return ends
}

// begin tells a subscription that its first states are there. The caller holds Hub.mu.
func (s *Subscription) begin() {
	if !s.open {
		s.open = true
		close(s.opened)
	}
}
