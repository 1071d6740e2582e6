package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"auditstream/internal/store"
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
	more    bool      // of what the owners have not all is watched

	over atomic.Bool // the hub is retired

	mu   sync.Mutex
	slot []*member // those with a state that was not taken yet, in the order in which they changed
}

// member is a subscription's place at one row.
type member struct {
	entry *entry
	since uint64       // Hub.reads when it came: an earlier read may be older than its question
	open  bool         // the first state is in the slot, or has been
	fresh *store.State // the newest, unless it was taken; guarded by the subscription's mu
}

// Subscribe watches rows, each named once, as one subscriber. It returns once the first state of each, read after the call, can
// be taken, also where there is no such row. Nobody is told yet that somebody watches: see Confirm. The caller calls Cancel, once.
//
// wake, which may be nil, is called whenever there is something to take, from the first on and not after Cancel. It must not
// block, nor call the hub.
//
// When ctx ends before, the error says so, with the cause of the last read that failed.
func (h *Hub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (*Subscription, error) {
	s := &Subscription{hub: h, wake: wake, opened: make(chan struct{}), waiting: len(keys)}
	h.mu.Lock()
	if h.retired {
		h.mu.Unlock()
		return nil, errRetired
	}
	for _, key := range keys {
		e := h.entry(key)
		h.attach(s, e)
		h.soil(e, urgent)
	}
	h.mu.Unlock()
	return s, h.await(ctx, s)
}

func (h *Hub) await(ctx context.Context, s *Subscription) error {
	select {
	case <-s.opened:
		return nil
	case <-ctx.Done():
	}
	s.Cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	failure := h.failure
	if s.owners != nil {
		failure = errors.Join(failure, h.owned.failure)
	}
	return fmt.Errorf("first read: %w", errors.Join(context.Cause(ctx), failure))
}

// attach makes a subscription a member of an entry. The caller holds mu.
func (h *Hub) attach(s *Subscription, e *entry) *member {
	m := &member{entry: e, since: h.reads}
	e.members[s] = m
	s.members = append(s.members, m)
	return m
}

// Take returns the newest state of each row that changed since the last call, nil when none did. A terminal state is not
// replaced by another: it is the last that is shown of its row.
func (s *Subscription) Take() (states []*store.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.slot {
		states = append(states, m.fresh)
		m.fresh = nil
	}
	clear(s.slot)
	s.slot = s.slot[:0]
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
		h.cfg.Announcer.Want(e.key)
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
	for _, m := range s.members {
		h.leave(s, m.entry)
		h.forget(m.entry)
	}
	s.members = nil
	if len(s.owners) > 0 {
		h.owned.remove(s)
		if len(h.owned.subs) == 0 {
			h.cfg.Announcer.Leave(Beginning)
		}
	}
}

// leave ends a subscription's place at a row. The caller holds mu, takes it out of the subscription's members, and calls forget.
func (h *Hub) leave(s *Subscription, e *entry) {
	delete(e.members, s)
	if s.wanted {
		if e.wanted--; e.wanted == 0 {
			h.cfg.Announcer.Leave(e.key)
		}
	}
}

// forget drops an entry that nobody watches, unless a find waits for it, or it may have begun. A queue that has it passes it over.
// The caller holds mu.
func (h *Hub) forget(e *entry) {
	announced := !e.noticed.IsZero() || !e.read.noticed.IsZero() // also when it is being read because of that
	mayHaveBegun := announced && len(h.owned.subs) > 0
	if len(e.members) == 0 && len(e.finds) == 0 && !mayHaveBegun {
		delete(h.entries, e.key)
	}
}

// put is how a state reaches a subscription: it replaces one of the same row that was not taken yet.
func (s *Subscription) put(m *member, state *store.State) {
	s.mu.Lock()
	switch {
	case m.fresh == nil:
		m.fresh = state
		s.slot = append(s.slot, m)
	case !m.fresh.Terminal():
		m.fresh = state
		s.hub.metrics.coalesced.Inc()
	}
	s.mu.Unlock()
	if s.wake != nil {
		s.wake()
	}
}

// holdsEnd reports whether the terminal state of a row was not taken yet.
func (s *Subscription) holdsEnd(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.slot, func(m *member) bool { return m.entry.key == e.key && m.fresh.Terminal() })
}

// begin tells a subscription that its first states are there. The caller holds Hub.mu.
func (s *Subscription) begin() {
	if !s.open {
		s.open = true
		close(s.opened)
	}
}
