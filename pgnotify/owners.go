package pgnotify

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"auditstream/store"
)

const (
	// maxSuspects is how many unwatched audits that changed are remembered until they are read. What is beyond it, the safety
	// net finds.
	maxSuspects = 10_000
	// maxSuspectsRead is how many of them one read is for, beside all that is watched.
	maxSuspectsRead = 1000
	// maxForeign is how many audits of others are remembered, in order not to read them again.
	maxForeign = 1 << 16
)

// owners are the groups that watch whatever an owner has, including what begins later. Any notification may be about that:
// unwatched audits that changed are read too while there is such a group, each of somebody else's once between two looks
// at what the owners have (find), which the safety net takes as well. Guarded by Hub.mu.
type owners struct {
	groups   map[store.Owner]map[*group]struct{}
	seeking  map[*group]struct{} // to be found
	stale    bool                // all are to be found again
	sought   map[int64]struct{}  // found, to be read
	suspects map[int64]time.Time // changed, by the time of the notification
	foreign  map[int64]struct{}  // looked at since the last find, nobody's here
	failure  error               // why the last find failed; nil after one that succeeded
}

func newOwners() owners {
	return owners{groups: make(map[store.Owner]map[*group]struct{}), seeking: make(map[*group]struct{}),
		sought: make(map[int64]struct{}), suspects: make(map[int64]time.Time), foreign: make(map[int64]struct{})}
}

// SubscribeOwned watches all audits that belong to a viewer and have not ended, as one subscriber, and takes in those that
// begin later. It returns once the states of all that there are when it is called are in the channel, which is empty if there
// are none. An audit that has ended, is gone or belongs to somebody else is not watched any more after the state that says
// so; it comes in anew if it begins again. In all else it is [Hub.SubscribeMany].
func (h *Hub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (states <-chan []*store.State, cancel func(), err error) {
	if h.cfg.Finder == nil {
		return nil, nil, errors.New("pgnotify: HubConfig.Finder is required by SubscribeOwned")
	}
	g := newGroup(wake)
	g.owners = viewer.Owners()
	h.addOwned(g)
	return h.awaitGroup(ctx, g)
}

func (h *Hub) addOwned(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(g.owners) == 0 { // a viewer who is nobody has nothing
		h.openAll([]*group{g})
		return
	}
	g.since = h.takes
	h.owners.add(g)
	h.arrive()
}

// owns reports whether the audit is the group's.
func (g *group) owns(state *store.State) bool {
	return state.Found && slices.Contains(g.owners, state.Audit.Owner())
}

func (o *owners) add(g *group) {
	for _, owner := range g.owners {
		if o.groups[owner] == nil {
			o.groups[owner] = make(map[*group]struct{})
		}
		o.groups[owner][g] = struct{}{}
	}
	o.seeking[g] = struct{}{}
}

// remove forgets a group, of any kind, and reports whether it was the last for an owner. With that go all suspects.
func (o *owners) remove(g *group) (last bool) {
	if g.owners == nil {
		return false
	}
	for _, owner := range g.owners {
		delete(o.groups[owner], g)
		if len(o.groups[owner]) == 0 {
			delete(o.groups, owner)
		}
	}
	delete(o.seeking, g)
	if len(o.groups) > 0 {
		return false
	}
	o.stale = false
	clear(o.sought)
	clear(o.suspects)
	clear(o.foreign)
	return true
}

// suspect notes that an unwatched audit has changed, and reports whether it is to be read.
func (o *owners) suspect(id int64) bool {
	if len(o.groups) == 0 || len(o.suspects) >= maxSuspects {
		return false
	}
	if _, ok := o.foreign[id]; ok {
		return false
	}
	if _, ok := o.suspects[id]; !ok {
		o.suspects[id] = time.Now()
	}
	return true
}

// refresh asks for all to be found again: notifications may have been lost. It reports whether there is anything to find.
func (o *owners) refresh() bool {
	o.stale = len(o.groups) > 0
	return o.stale
}

// take adds to a batch what was found and suspected, and reports whether suspects are left for the next.
func (o *owners) take(batch map[int64]mark) (left bool) {
	for id := range o.sought {
		if _, ok := batch[id]; !ok {
			batch[id] = mark{resync: true, found: true}
		}
	}
	clear(o.sought)
	n := 0
	for id, noticed := range o.suspects {
		if n++; n > maxSuspectsRead {
			return true
		}
		delete(o.suspects, id)
		m := batch[id]
		if m.noticed.IsZero() {
			m.noticed = noticed
		}
		batch[id] = m
	}
	return false
}

// find looks for what new groups have, and for what all have when notifications may have been lost; the read that follows
// is for it. A failure is not the read's: those who wait for it give up, and the safety net tries again.
func (h *Hub) find(ctx context.Context) (found []*group) {
	h.registerBeginners(ctx)
	h.mu.Lock()
	found, names := h.owners.begin()
	h.mu.Unlock()
	if len(found) == 0 {
		return nil
	}
	findCtx, cancel := context.WithTimeout(ctx, h.cfg.ReadTimeout)
	ids, err := h.cfg.Finder.Owned(findCtx, names)
	cancel()
	if ctx.Err() != nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.owners.failure == nil {
		h.cfg.Logger.Error("the audits of users who watch all of theirs cannot be found; it is tried again", "error", err)
	}
	h.owners.failure = err
	if err != nil {
		h.owners.again(found)
		return nil
	}
	for _, id := range ids {
		h.owners.sought[id] = struct{}{}
	}
	return found
}

// begin says which groups are to be found, and their owners. What is remembered of others' audits is forgotten before the
// database is asked: a change that it does not see yet must be looked at.
func (o *owners) begin() (found []*group, names []store.Owner) {
	if !o.stale && len(o.seeking) == 0 {
		return nil, nil
	}
	clear(o.foreign)
	set := make(map[store.Owner]struct{})
	for g := range o.seeking {
		found = append(found, g)
		for _, owner := range g.owners {
			set[owner] = struct{}{}
		}
	}
	if o.stale {
		for owner, groups := range o.groups {
			set[owner] = struct{}{}
			for g := range groups {
				if g.open {
					found = append(found, g)
				}
			}
		}
	}
	o.stale = false
	clear(o.seeking)
	return found, slices.Collect(maps.Keys(set))
}

// again takes back begin.
func (o *owners) again(found []*group) {
	for _, g := range found {
		if _, ok := o.groups[g.owners[0]][g]; !ok {
			continue // it has gone
		}
		if g.open {
			o.stale = true
		} else {
			o.seeking[g] = struct{}{}
		}
	}
}

// openAll tells groups that what they have has been read. The caller holds mu.
func (h *Hub) openAll(found []*group) {
	for _, g := range found {
		if !g.open {
			g.open = true
			close(g.opened)
		}
	}
}

// offer shows a state to the groups of its owner that do not watch the audit yet. The caller holds mu.
func (h *Hub) offer(state *store.State) {
	if len(h.owners.groups) == 0 || !state.Found {
		return
	}
	groups := h.owners.groups[state.Audit.Owner()]
	if len(groups) == 0 && h.watched[state.ID] == nil && len(h.owners.foreign) < maxForeign {
		h.owners.foreign[state.ID] = struct{}{}
	}
	if state.Terminal() {
		return
	}
	for g := range groups {
		if g.since >= h.takes || g.members[state.ID] != nil || g.holdsEnd(state.ID) {
			continue // its own find follows; or it has the audit, or will when what has ended is taken
		}
		sub := &subscription{id: state.ID, group: g, open: true}
		g.members[state.ID] = sub
		if w := h.join(sub); w.last == nil {
			w.last = state
		}
		h.put(sub, state)
		if h.unregistered(state.ID) { // what was read before it was registered is read again after
			h.mark(state.ID, mark{resync: true})
			h.ring()
		}
	}
}
