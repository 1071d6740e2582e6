package pgnotify

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"auditstream/store"
)

// owned are the subscriptions to whatever an owner has, what begins later included. What they have is found beside the hub's
// reads, by Find, and then watched like anything else. Guarded by Hub.mu.
type owned struct {
	subs    map[store.Owner]map[*Subscription]struct{}
	due     map[*Subscription]struct{} // to be found
	all     bool                       // all are due
	wake    bell                       // something is due
	failure error                      // why the last find failed; nil after one that succeeded
}

func newOwned() owned {
	return owned{subs: make(map[store.Owner]map[*Subscription]struct{}), due: make(map[*Subscription]struct{}), wake: newBell()}
}

// find is what was found for some subscriptions, which begin when all of it has been read.
type find struct {
	subs   []*Subscription
	since  uint64 // Hub.reads when it was found: an earlier read may be older than the question
	unread int
}

// hasRead counts a read of one of what was found, unless it is an earlier one. The caller holds Hub.mu.
func (f *find) hasRead(read uint64) bool {
	if read <= f.since {
		return false
	}
	f.unread--
	f.begin()
	return true
}

// begin tells the subscriptions when all has been read. The caller holds Hub.mu.
func (f *find) begin() {
	if f.unread == 0 {
		for _, s := range f.subs {
			s.begin()
		}
	}
}

// SubscribeOwned watches all audits that belong to a viewer and have not ended, as one subscriber, and takes in those that begin
// later. It returns once the states of all that there are when it is called can be taken; there may be none. They are the
// viewer's, so that Confirm need not be called. An audit that has ended, is gone or belongs to somebody else is not watched any
// more after the state that says so; it comes in anew if it begins again. In all else it is [Hub.Subscribe].
func (h *Hub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (*Subscription, error) {
	if h.cfg.Finder == nil {
		return nil, errors.New("pgnotify: HubConfig.Finder is required by SubscribeOwned")
	}
	s := &Subscription{hub: h, wake: wake, opened: make(chan struct{}), take: 1, owners: viewer.Owners(), wanted: true}
	if len(s.owners) == 0 { // a viewer who is nobody has nothing
		s.begin()
		return s, nil
	}
	h.mu.Lock()
	if len(h.owned.subs) == 0 {
		h.announcer.Want(Beginning)
	}
	h.owned.add(s)
	h.mu.Unlock()
	return s, h.await(ctx, s)
}

func (o *owned) add(s *Subscription) {
	for _, owner := range s.owners {
		if o.subs[owner] == nil {
			o.subs[owner] = make(map[*Subscription]struct{})
		}
		o.subs[owner][s] = struct{}{}
	}
	o.due[s] = struct{}{}
	o.wake.ring()
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
	return len(o.subs) == 0
}

// mayBegin reports whether an audit that nobody watches is worth a look.
func (o *owned) mayBegin() bool { return len(o.subs) > 0 }

// refresh has all found again: what began may not have been announced.
func (o *owned) refresh() {
	if o.all = len(o.subs) > 0; o.all {
		o.wake.ring()
	}
}

// Find finds what owners have, beside Run, until ctx is done, and returns nil. It must run exactly once where SubscribeOwned is used.
// It rests for as long as it has worked: what it asks may be long work for the database, which everybody else needs, too.
func (h *Hub) Find(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.owned.wake:
		}
		start := time.Now()
		h.find(ctx)
		if took := time.Since(start); took > findShort {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(took):
			}
		}
	}
}

// findShort is the longest work after which Find does not rest.
const findShort = 50 * time.Millisecond

func (h *Hub) find(ctx context.Context) {
	subs, owners := h.owned.takeDue(&h.mu)
	if len(subs) == 0 {
		return
	}
	findCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
	keys, err := h.cfg.Finder.Owned(findCtx, owners)
	cancel()
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	before := h.owned.failure
	h.owned.failure = err
	if err != nil {
		h.owned.again(subs)
	}
	f := &find{subs: subs, since: h.reads, unread: len(keys)}
	h.mu.Unlock()
	if err == nil {
		h.found(f, keys)
	}
	switch {
	case err != nil && before == nil:
		h.cfg.Logger.Error("the audits of users who watch all of theirs cannot be found; it is tried again", "error", err)
	case err == nil && before != nil:
		h.cfg.Logger.Info("the audits of users who watch all of theirs are found again")
	}
}

// again has what could not be found looked for again, a moment later.
func (o *owned) again(subs []*Subscription) {
	for _, s := range subs {
		if !s.gone {
			o.due[s] = struct{}{}
		}
	}
	time.AfterFunc(readRetryMax/2, o.wake.ring)
}

// found has read what was found, which may be very much: it lets others have the lock in between.
func (h *Hub) found(f *find, keys []store.Key) {
	if len(keys) == 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		f.begin()
	}
	for chunk := range slices.Chunk(keys, maxRead) {
		h.mu.Lock()
		for _, key := range chunk {
			e := h.entries[key]
			if e == nil {
				e = h.add(key)
			}
			e.known = true
			e.finds = append(e.finds, f)
			h.soil(e, soon)
		}
		h.mu.Unlock()
	}
}

// takeDue returns for whom something is to be found, and whose.
func (o *owned) takeDue(mu *sync.Mutex) (subs []*Subscription, owners []store.Owner) {
	mu.Lock()
	defer mu.Unlock()
	if o.all {
		for _, all := range o.subs {
			maps.Copy(o.due, all)
		}
	}
	subs = slices.Collect(maps.Keys(o.due))
	clear(o.due)
	o.all = false
	seen := make(map[store.Owner]struct{})
	for _, s := range subs {
		for _, owner := range s.owners {
			seen[owner] = struct{}{}
		}
	}
	return subs, slices.Collect(maps.Keys(seen))
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
		if slices.ContainsFunc(e.members, func(m *member) bool { return m.sub == s }) || s.holdsEnd(e.key) {
			continue
		}
		m := h.attach(s, e)
		m.open = true
		m.put(e.state)
		h.want(e)
	}
}
