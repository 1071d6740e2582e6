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

// owned are the subscriptions to whatever an owner has, what begins later included. What they have is found beside the hub's
// reads, by Find, and then watched like anything else. Guarded by Hub.mu.
type owned struct {
	subs    map[store.Owner]map[*Subscription]struct{}
	due     map[*Subscription]struct{} // to be found
	all     bool                       // all are due
	wake    Bell                       // something is due
	failure error                      // why the last find failed; nil after one that succeeded
}

func newOwned() owned {
	return owned{subs: make(map[store.Owner]map[*Subscription]struct{}), due: make(map[*Subscription]struct{}), wake: NewBell()}
}

// find is what was found for some subscriptions, which begin when all of it has been read. Guarded by Hub.mu.
type find struct {
	subs   []*Subscription
	since  uint64 // Hub.reads when it was found: an earlier read may be older than the question
	unread int    // and one more until all is marked dirty
}

// hasRead counts a read of one of what was found, unless it is an earlier one.
func (f *find) hasRead(read uint64) bool {
	if read > f.since {
		f.done()
	}
	return read > f.since
}

// done tells the subscriptions when it was the last.
func (f *find) done() {
	if f.unread--; f.unread == 0 {
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
	s := &Subscription{hub: h, wake: wake, opened: make(chan struct{}), owners: h.cfg.Feed.Owners(viewer), wanted: true}
	if len(s.owners) == 0 { // a viewer who is nobody has nothing
		s.begin()
		return s, nil
	}
	h.mu.Lock()
	if h.retired {
		h.mu.Unlock()
		return nil, errRetired
	}
	if len(h.owned.subs) == 0 {
		h.cfg.Announcer.Want(Beginning)
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
	o.wake.Ring()
}

func (o *owned) remove(s *Subscription) {
	for _, owner := range s.owners {
		delete(o.subs[owner], s)
		if len(o.subs[owner]) == 0 {
			delete(o.subs, owner)
		}
	}
	delete(o.due, s)
}

// refresh has all found again: what began may not have been announced.
func (o *owned) refresh() {
	if o.all = len(o.subs) > 0; o.all {
		o.wake.Ring()
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
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Since(start)):
		}
	}
}

func (h *Hub) find(ctx context.Context) {
	h.mu.Lock()
	if h.owned.all {
		for _, subs := range h.owned.subs {
			maps.Copy(h.owned.due, subs)
		}
		h.owned.all = false
	}
	f := &find{subs: slices.Collect(maps.Keys(h.owned.due))}
	clear(h.owned.due)
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
	h.finding.Log(h.cfg.Logger, slog.LevelError, err, "the audits of users who watch all of theirs cannot be found; it is tried again", "the audits of users who watch all of theirs are found again")
	h.found(f, keys, more, err)
}

// found has read what was found, which may be very much: it lets others have the lock in between. What could not be found is looked
// for again, a moment later.
func (h *Hub) found(f *find, keys []store.Key, more []store.Owner, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.owned.failure = err
	if err != nil {
		for _, s := range f.subs {
			if !s.gone {
				h.owned.due[s] = struct{}{}
			}
		}
		time.AfterFunc(readRetryMax/2, h.owned.wake.Ring)
		return
	}
	for _, s := range f.subs {
		s.more = slices.ContainsFunc(s.owners, func(o store.Owner) bool { return slices.Contains(more, o) })
	}
	f.since, f.unread = h.reads, len(keys)+1
	for chunk := range slices.Chunk(keys, maxRead) {
		for _, key := range chunk {
			e := h.entry(key)
			e.known = true
			e.finds = append(e.finds, f)
			h.soil(e, soon)
		}
		h.mu.Unlock()
		h.mu.Lock()
	}
	f.done()
}

// owns reports whether the audit is the subscription's.
func (s *Subscription) owns(state *store.State) bool {
	return state.Found && slices.ContainsFunc(state.Audit.Owners(), func(o store.Owner) bool { return slices.Contains(s.owners, o) })
}

// maxOwned is how many rows one subscription to all of an owner's watches: those that are found, and as many that begin later or change.
const maxOwned = 2 * store.MaxOwned

// More reports whether an owner has more that has not ended than the subscription watches.
func (s *Subscription) More() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.more
}

// offer gives an audit to the subscriptions of its owner that do not watch it yet. The caller holds mu.
func (h *Hub) offer(e *entry) {
	if len(h.owned.subs) == 0 || !e.state.Found || e.state.Terminal() {
		return
	}
	for _, owner := range e.state.Audit.Owners() {
		for s := range h.owned.subs[owner] {
			switch {
			case e.members[s] != nil || s.holdsEnd(e):
			case len(s.members) >= maxOwned:
				s.more = true
			default:
				m := h.attach(s, e)
				m.open = true
				s.put(m, e.state)
				h.want(e)
			}
		}
	}
}
