package next

import (
	"context"
	"errors"
	"maps"
	"slices"

	"auditstream/store"
)

// owned are the subscriptions to whatever an owner has, what begins later included. What they have is found beside the hub's
// reads, by Find, and then watched like anything else. Guarded by Hub.mu.
type owned struct {
	subs    map[store.Owner]map[*Subscription]struct{}
	due     map[*Subscription]struct{} // to be found
	found   map[*Subscription]struct{} // what they have is about to be read
	wake    chan struct{}              // capacity 1: something is due
	failure error                      // why the last find failed; nil after one that succeeded
}

func newOwned() owned {
	return owned{subs: make(map[store.Owner]map[*Subscription]struct{}), due: make(map[*Subscription]struct{}),
		found: make(map[*Subscription]struct{}), wake: make(chan struct{}, 1)}
}

// SubscribeOwned watches all audits that belong to a viewer and have not ended, as one subscriber, and takes in those that begin
// later. It returns once the states of all that there are when it is called can be taken; there may be none. They are the
// viewer's, so that Confirm need not be called. An audit that has ended, is gone or belongs to somebody else is not watched any
// more after the state that says so; it comes in anew if it begins again. In all else it is [Hub.Subscribe].
func (h *Hub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (*Subscription, error) {
	if h.cfg.Finder == nil {
		return nil, errors.New("pgnotify: Config.Finder is required by SubscribeOwned")
	}
	s := &Subscription{hub: h, wake: wake, opened: make(chan struct{}), owners: viewer.Owners(), wanted: true}
	if len(s.owners) == 0 { // a viewer who is nobody has nothing
		s.begin()
		return s, nil
	}
	h.mu.Lock()
	if len(h.owned.subs) == 0 {
		h.cfg.Registrar.Want(Beginning, 0)
	}
	h.owned.add(s)
	h.mu.Unlock()
	return s, h.await(ctx, s)
}

// Beginning stands for whatever begins, where an audit's id is asked for.
const Beginning store.Key = ""

func (o *owned) add(s *Subscription) {
	for _, owner := range s.owners {
		if o.subs[owner] == nil {
			o.subs[owner] = make(map[*Subscription]struct{})
		}
		o.subs[owner][s] = struct{}{}
	}
	o.due[s] = struct{}{}
	o.ring()
}

func (o *owned) ring() {
	select {
	case o.wake <- struct{}{}:
	default: // already ringing
	}
}

// remove forgets a subscription, of any kind, and reports whether it was the last to whatever an owner has.
func (o *owned) remove(s *Subscription) (last bool) {
	if len(s.owners) == 0 {
		return false
	}
	for _, owner := range s.owners {
		delete(o.subs[owner], s)
		if len(o.subs[owner]) == 0 {
			delete(o.subs, owner)
		}
	}
	delete(o.due, s)
	delete(o.found, s)
	return len(o.subs) == 0
}

// mayBegin reports whether an audit that nobody watches is worth a look.
func (o *owned) mayBegin() bool { return len(o.subs) > 0 }

// refresh has all found again: what began may not have been announced.
func (o *owned) refresh() {
	for _, subs := range o.subs {
		for s := range subs {
			o.due[s] = struct{}{}
		}
	}
	if len(o.due) > 0 {
		o.ring()
	}
}

// Find finds what owners have, beside Run, until ctx is done, and returns nil. It must run exactly once where SubscribeOwned is used.
func (h *Hub) Find(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.owned.wake:
			h.find(ctx)
		}
	}
}

func (h *Hub) find(ctx context.Context) {
	h.mu.Lock()
	due := slices.Collect(maps.Keys(h.owned.due))
	clear(h.owned.due)
	names := make(map[store.Owner]struct{})
	for _, s := range due {
		for _, owner := range s.owners {
			names[owner] = struct{}{}
		}
	}
	h.mu.Unlock()
	if len(due) == 0 {
		return
	}
	findCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
	ids, err := h.cfg.Finder.Owned(findCtx, slices.Collect(maps.Keys(names)))
	cancel()
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.owned.failure == nil {
		h.cfg.Logger.Error("the audits of users who watch all of theirs cannot be found; it is tried again", "error", err)
	}
	h.owned.failure = err
	if err != nil {
		return // those who wait give up, and the safety net tries again
	}
	for _, id := range ids {
		e := h.entries[id]
		if e == nil {
			e = h.add(id)
		}
		e.known = true
		h.soil(e, urgent)
	}
	for _, s := range due {
		if !s.gone {
			h.owned.found[s] = struct{}{}
		}
	}
	if len(h.urgent) == 0 && h.reading == nil {
		h.owned.allRead()
	}
}

// allRead opens the subscriptions whose audits have been read. The caller holds Hub.mu.
func (o *owned) allRead() {
	for s := range o.found {
		s.begin()
	}
	clear(o.found)
}

// owns reports whether the audit is the subscription's.
func (s *Subscription) owns(state *store.State) bool {
	return state.Found && slices.Contains(s.owners, state.Audit.Owner())
}

// offer gives an audit to the subscriptions of its owner that do not watch it yet. The caller holds mu.
func (h *Hub) offer(e *entry) {
	if len(h.owned.subs) == 0 || e.state == nil || !e.state.Found || e.state.Terminal() {
		return
	}
	for s := range h.owned.subs[e.state.Audit.Owner()] {
		if slices.ContainsFunc(e.members, func(m *member) bool { return m.sub == s }) || s.holdsEnd(e.id) {
			continue
		}
		m := h.attach(s, e)
		m.open = true
		s.put(e.state)
		h.want(m)
	}
}
