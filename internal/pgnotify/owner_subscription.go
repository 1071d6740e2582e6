package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"auditstream/internal/store"
)

// ownerSubscriptions are the subscriptions to all rows of an owner, also of rows that do not exist yet. Find searches for the rows beside
// the hub's reads; then they are watched like any others. Guarded by Hub.mu.
type ownerSubscriptions struct {
	subs      map[store.Owner]map[*Subscription]struct{}
	due       map[*Subscription]struct{} // those for which Find must search
	all       bool                       // Find must search for all
	dueBell   Bell                       // due or all was set
	findError error                      // why the last search failed; nil after a success
}

func newOwnerSubscriptions() ownerSubscriptions {
	return ownerSubscriptions{subs: make(map[store.Owner]map[*Subscription]struct{}), due: make(map[*Subscription]struct{}), dueBell: NewBell()}
}

// ownerSearch is one search for the rows of some subscriptions, which become ready when all that it found was read. Guarded by Hub.mu.
type ownerSearch struct {
	subs   []*Subscription
	since  uint64 // Hub.reads when it ended: an earlier read may be older than the subscriptions
	unread int    // rows that were not read yet, plus one until all are marked dirty
}

// countRead counts the read of one of its rows, and reports whether the read was new enough.
func (f *ownerSearch) countRead(read uint64) bool {
	if read > f.since {
		f.countDown()
	}
	return read > f.since
}

// countDown makes the subscriptions ready after the last read.
func (f *ownerSearch) countDown() {
	if f.unread--; f.unread == 0 {
		for _, s := range f.subs {
			s.setReady()
		}
	}
}

// SubscribeOwned watches all rows that a viewer may see and that have not ended, as one subscriber, also those that are inserted later. It
// returns when the states of all rows that exist at the call can be taken; there may be none. Confirm is not needed, because the rows
// are known to be the viewer's. When a row ends, is deleted or gets another owner, the subscription gets a last state that says so and
// stops watching the row; it watches the row again if that changes. Otherwise it is like [Hub.Subscribe].
func (h *Hub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (*Subscription, error) {
	if h.cfg.Finder == nil {
		return nil, errors.New("pgnotify: HubConfig.Finder is required by SubscribeOwned")
	}
	s := &Subscription{hub: h, wake: wake, ready: make(chan struct{}), owners: h.cfg.Feed.Owners(viewer), confirmed: true}
	if len(s.owners) == 0 { // a viewer without an identity has no rows
		s.setReady()
		return s, nil
	}
	h.mu.Lock()
	if h.feedGone {
		h.mu.Unlock()
		return nil, errFeedGone
	}
	if len(h.byOwner.subs) == 0 {
		h.cfg.Announcer.Want(NewRows)
	}
	h.byOwner.add(s)
	h.mu.Unlock()
	return s, h.awaitFirst(ctx, s)
}

// add adds a subscription, for which Find must search. The caller holds Hub.mu, also of remove and findAll.
func (o *ownerSubscriptions) add(s *Subscription) {
	for _, owner := range s.owners {
		if o.subs[owner] == nil {
			o.subs[owner] = make(map[*Subscription]struct{})
		}
		o.subs[owner][s] = struct{}{}
	}
	o.due[s] = struct{}{}
	o.dueBell.Ring()
}

func (o *ownerSubscriptions) remove(s *Subscription) {
	for _, owner := range s.owners {
		delete(o.subs[owner], s)
		if len(o.subs[owner]) == 0 {
			delete(o.subs, owner)
		}
	}
	delete(o.due, s)
}

// findAll makes Find search for all subscriptions, because new rows may not have been announced.
func (o *ownerSubscriptions) findAll() {
	if o.all = len(o.subs) > 0; o.all {
		o.dueBell.Ring()
	}
}

// Find searches for owners' rows until ctx is done, and returns nil. Where SubscribeOwned is used, call it exactly once, beside Run. After
// each search it pauses for as long as the search took, so that slow searches take at most half of one connection's time.
func (h *Hub) Find(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.byOwner.dueBell:
		}
		start := time.Now()
		h.searchOwners(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Since(start)):
		}
	}
}

// searchOwners searches once for all subscriptions that are due.
func (h *Hub) searchOwners(ctx context.Context) {
	h.mu.Lock()
	if h.byOwner.all {
		for _, subs := range h.byOwner.subs {
			maps.Copy(h.byOwner.due, subs)
		}
		h.byOwner.all = false
	}
	f := &ownerSearch{subs: slices.Collect(maps.Keys(h.byOwner.due))}
	clear(h.byOwner.due)
	h.mu.Unlock()
	owners := make(map[store.Owner]struct{})
	for _, s := range f.subs {
		for _, owner := range s.owners {
			owners[owner] = struct{}{}
		}
	}
	if len(owners) == 0 {
		return
	}
	findCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
	defer cancel()
	keys, more, err := h.cfg.Finder.Owned(findCtx, slices.Collect(maps.Keys(owners)))
	if ctx.Err() != nil {
		return
	}
	h.findTrouble.Log(h.cfg.Logger, slog.LevelError, err,
		"database query for the audits of users who watch all of theirs failed, trying again",
		"database queries for the audits of users who watch all of theirs work again")
	h.searchDone(f, keys, more, err)
}

// searchDone marks the rows that a search has found dirty. They may be many, so it releases the lock between chunks. A failed search is
// retried after half a second.
func (h *Hub) searchDone(f *ownerSearch, keys []store.Key, more []store.Owner, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byOwner.findError = err
	if err != nil {
		for _, s := range f.subs {
			if !s.canceled {
				h.byOwner.due[s] = struct{}{}
			}
		}
		time.AfterFunc(readRetryMax/2, h.byOwner.dueBell.Ring)
		return
	}
	for _, s := range f.subs {
		s.hasMore = slices.ContainsFunc(s.owners, func(o store.Owner) bool { return slices.Contains(more, o) })
	}
	f.since, f.unread = h.reads, len(keys)+1
	for chunk := range slices.Chunk(keys, maxRead) {
		for _, key := range chunk {
			e := h.entry(key)
			e.excused = true
			e.searches = append(e.searches, f)
			h.markDirty(e, soon)
		}
		h.mu.Unlock()
		h.mu.Lock()
	}
	f.countDown()
}

// owns reports whether a row belongs to one of the subscription's owners.
func (s *Subscription) owns(state *store.State) bool {
	return state.Found && slices.ContainsFunc(state.Row.Owners(), func(o store.Owner) bool { return slices.Contains(s.owners, o) })
}

// maxOwnedWatched is how many rows one subscription of SubscribeOwned watches: those that the Finder returns, and as many that are inserted
// or change later. Beyond it, More reports true.
const maxOwnedWatched = 2 * store.MaxOwned

// More reports whether an owner has more rows that have not ended than the subscription watches.
func (s *Subscription) More() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hasMore
}

// offerToOwners adds a row to the subscriptions of its owners that do not watch it yet. The caller holds mu.
func (h *Hub) offerToOwners(e *entry) {
	if len(h.byOwner.subs) == 0 || !e.state.Found || e.state.Terminal() {
		return
	}
	for _, owner := range e.state.Row.Owners() {
		for s := range h.byOwner.subs[owner] {
			switch {
			case e.members[s] != nil || s.hasUntakenEnd(e):
			case len(s.members) >= maxOwnedWatched:
				s.hasMore = true
			default:
				m := h.addMember(s, e)
				m.started = true
				s.put(m, e.state)
				h.confirmMember(e)
			}
		}
	}
}
