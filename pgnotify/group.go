package pgnotify

import (
	"context"

	"auditstream/store"
)

// group is one stream's place in the hub when it watches several audits: a subscription for each, and one slot for all.
// Its fields are guarded by Hub.mu, the channels are not.
type group struct {
	members map[int64]*subscription // by audit; one that has ended is none any more
	waiting int                     // members without a first state
	opened  chan struct{}           // closed when there are none; for an owner's, when what was found has been read
	slot    chan []*store.State     // capacity 1: the newest state of each audit that the stream has not taken yet
	places  map[int64]int           // in the slot's slice; void once it is taken
	wake    func()                  // called after the slot is filled; may be nil

	// What follows is for all the audits of an owner.
	owners []store.Owner // nil: the audits are those that were asked for
	since  uint64        // Hub.takes at registration
	open   bool          // opened is closed
}

func newGroup(wake func()) *group {
	return &group{members: make(map[int64]*subscription), opened: make(chan struct{}), slot: make(chan []*store.State, 1),
		places: make(map[int64]int), wake: wake}
}

// SubscribeMany watches several audits, each named once, as one subscriber. It returns once the first state of each is in
// the channel, in one slice in no order. From then on the channel holds, in the order in which they first changed, the
// newest state of each audit that has changed since the slice before it was taken, except that a terminal state is not
// replaced: it is the last that is shown of its audit. The receiver owns the slice. In all else it is [Hub.Subscribe].
func (h *Hub) SubscribeMany(ctx context.Context, ids []int64, wake func()) (states <-chan []*store.State, cancel func(), err error) {
	g := newGroup(wake)
	h.addMany(g, ids)
	return h.awaitGroup(ctx, g)
}

// awaitGroup waits for the first states of a group that is registered.
func (h *Hub) awaitGroup(ctx context.Context, g *group) (<-chan []*store.State, func(), error) {
	select {
	case <-g.opened:
		return g.slot, func() { h.removeGroup(g) }, nil
	case <-ctx.Done():
		h.removeGroup(g)
		return nil, nil, h.notOpened(ctx)
	}
}

// addMany registers all at once, so that one read is for all.
func (h *Hub) addMany(g *group, ids []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		sub := &subscription{id: id, group: g}
		g.members[id] = sub
		h.join(sub)
		if _, ok := h.dirty[id]; !ok {
			h.dirty[id] = mark{}
		}
	}
	g.waiting = len(g.members)
	if g.waiting == 0 {
		close(g.opened)
		return
	}
	h.arrive()
}

func (h *Hub) removeGroup(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, sub := range g.members {
		h.leave(sub)
	}
	clear(g.members)
	if h.owners.remove(g) {
		h.left()
	}
}

// putGroup is put for a member of a group. Whoever has shown its last state, leaves. The caller holds mu.
func (h *Hub) putGroup(sub *subscription, state *store.State) {
	g := sub.group
	var states []*store.State
	select {
	case states = <-g.slot:
	default:
		clear(g.places)
	}
	if k, ok := g.places[state.ID]; !ok {
		g.places[state.ID] = len(states)
		states = append(states, state)
	} else {
		h.metrics.coalesced.Inc()
		if !states[k].Terminal() {
			states[k] = state
		}
	}
	g.slot <- states
	if g.over(state) {
		delete(g.members, state.ID)
		h.leave(sub)
	}
	if g.wake != nil {
		g.wake()
	}
}

// began notes that the first state of a member is in the slot. The caller holds mu.
func (g *group) began() {
	if g.waiting--; g.waiting == 0 {
		close(g.opened)
	}
}

// over reports whether a state is the last that the group is shown of an audit.
func (g *group) over(state *store.State) bool {
	if state.Terminal() {
		return true
	}
	return g.owners != nil && state.Err == nil && !g.owns(state)
}

// holdsEnd reports whether the terminal state of an audit has not been taken yet. The caller holds Hub.mu.
func (g *group) holdsEnd(id int64) bool {
	select {
	case states := <-g.slot:
		g.slot <- states
		if g.wake != nil {
			g.wake() // the stream may have looked just then
		}
		k, ok := g.places[id]
		return ok && states[k].Terminal()
	default:
		return false
	}
}
