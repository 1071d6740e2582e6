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

// Subscription is one stream's subscription to one or several rows. Its methods are safe for concurrent use.
type Subscription struct {
	hub    *Hub
	wake   func()
	ready  chan struct{} // closed when the first states can be taken
	owners []store.Owner // for SubscribeOwned: whose rows it watches; nil for Subscribe

	members   []*member // Hub.mu guards this and the fields down to hasMore
	waiting   int       // members without a first state
	isReady   bool      // ready is closed
	confirmed bool      // Confirm was called
	canceled  bool      // Cancel was called
	hasMore   bool      // the owners have more rows than are watched

	feedGone atomic.Bool // Hub.Retire was called

	mu   sync.Mutex // guards slot, and fresh of the members
	slot []*member  // members with a state that was not taken yet, in the order in which they changed
}

// member is one row of a subscription. Hub.mu guards it, except fresh.
type member struct {
	entry   *entry
	since   uint64       // Hub.reads when it was added: the result of an earlier read may be older than the subscription
	started bool         // it has been given its first state
	fresh   *store.State // the newest state that was not taken yet; nil: none
}

// Subscribe watches the rows of keys, in which no key is repeated, as one subscriber. It returns when the first state of each, from a read
// that began after the call, can be taken; a missing row has a State, too. Writers do not notify for this subscriber before Confirm. The
// caller must call Cancel once.
//
// wake, which may be nil, is called whenever there is something to take: from the first states on, and not after Cancel. It must neither
// block nor call the hub.
//
// When ctx ends first, the error wraps its cause and the error of the last read, if that failed.
func (h *Hub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (*Subscription, error) {
	s := &Subscription{hub: h, wake: wake, ready: make(chan struct{}), waiting: len(keys)}
	h.mu.Lock()
	if h.feedGone {
		h.mu.Unlock()
		return nil, errFeedGone
	}
	for _, key := range keys {
		e := h.entry(key)
		h.addMember(s, e)
		h.markDirty(e, urgent)
	}
	h.mu.Unlock()
	return s, h.awaitFirst(ctx, s)
}

// awaitFirst waits for the first states, and cancels the subscription when ctx ends first.
func (h *Hub) awaitFirst(ctx context.Context, s *Subscription) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
	}
	s.Cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	failure := h.readError
	if s.owners != nil {
		failure = errors.Join(failure, h.byOwner.findError)
	}
	return fmt.Errorf("first read: %w", errors.Join(context.Cause(ctx), failure))
}

// addMember makes a subscription a member of an entry. The caller holds mu.
func (h *Hub) addMember(s *Subscription, e *entry) *member {
	m := &member{entry: e, since: h.reads}
	e.members[s] = m
	s.members = append(s.members, m)
	return m
}

// Take returns the newest state of each row that changed since the last call, or nil when none did. A terminal state is never replaced
// by a later one, so that it is the last state that the viewer sees of its row.
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

// Confirm says that the viewer may see the rows. From now on writers notify of their changes, and the rows are read again for changes
// since the first read. It does not block.
func (s *Subscription) Confirm() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.canceled || s.confirmed {
		return
	}
	s.confirmed = true
	for _, m := range s.members {
		s.hub.confirmMember(m.entry)
	}
}

// confirmMember counts a confirmed member; the first one makes writers notify. The caller holds mu.
func (h *Hub) confirmMember(e *entry) {
	if e.confirmed++; e.confirmed == 1 {
		h.cfg.Announcer.Want(e.key)
	}
}

// Cancel ends the subscription. It does not block.
func (s *Subscription) Cancel() {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.canceled {
		return
	}
	s.canceled = true
	for _, m := range s.members {
		h.removeMember(s, m.entry)
		h.dropUnwatched(m.entry)
	}
	s.members = nil
	if len(s.owners) > 0 {
		h.byOwner.remove(s)
		if len(h.byOwner.subs) == 0 {
			h.cfg.Announcer.Leave(NewRows)
		}
	}
}

// removeMember removes a subscription from an entry. The caller holds mu, removes the member from the subscription, and calls
// dropUnwatched.
func (h *Hub) removeMember(s *Subscription, e *entry) {
	delete(e.members, s)
	if s.confirmed {
		if e.confirmed--; e.confirmed == 0 {
			h.cfg.Announcer.Leave(e.key)
		}
	}
}

// dropUnwatched drops an entry that nobody watches, unless a search waits for it or it may be a new row of a watched owner. A queue that
// still has it skips it. The caller holds mu.
func (h *Hub) dropUnwatched(e *entry) {
	announced := !e.noticed.IsZero() || !e.reading.noticed.IsZero() // by a notification that waits for a read, or is being read
	mayBeNew := announced && len(h.byOwner.subs) > 0
	if len(e.members) == 0 && len(e.searches) == 0 && !mayBeNew {
		delete(h.entries, e.key)
	}
}

// put gives a subscription a state. It replaces a state of the same row that was not taken yet.
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

// hasUntakenEnd reports whether the slot has a terminal state of a row.
func (s *Subscription) hasUntakenEnd(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.slot, func(m *member) bool { return m.entry.key == e.key && m.fresh.Terminal() })
}

// setReady says that the first states can be taken. The caller holds Hub.mu.
func (s *Subscription) setReady() {
	if !s.isReady {
		s.isReady = true
		close(s.ready)
	}
}

// endFeed wakes the subscriber because the feed is gone.
func (s *Subscription) endFeed() {
	if !s.feedGone.Swap(true) && s.wake != nil {
		s.wake()
	}
}

// Over reports whether the subscription has ended because the feed was uninstalled or replaced. wake is called when that happens.
func (s *Subscription) Over() bool { return s.feedGone.Load() }
