package pgnotify

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	registerTimeout = 2 * time.Second
	goodbyeTimeout  = time.Second
	// lingers is for how long what nobody watches any more stays registered, so that a page that is reloaded finds it so.
	lingers = 2 * time.Second
	// whateverBegins is registered in place of an audit while somebody watches all that an owner has: inserts ring for it.
	whateverBegins = 0
)

// registration is what the hub has told the triggers. The fields up to settling are guarded by Hub.mu, the rest is Run's.
type registration struct {
	instance int64              // of the session that listens; 0: none, so that ringing would be in vain
	last     int64              // of the newest session, which may have ended
	ids      map[int64]struct{} // what is registered
	stray    map[int64]struct{} // what may be, besides: registering or unregistering it has failed
	doubted  bool               // somebody may have emptied the table, or made it
	failed   bool               // not tried again before the safety net, or a doubt
	warned   bool               // that it fails

	settling settling
	look     *time.Timer   // for the end of transactions
	lookAt   time.Time     // when it fires; zero: it is not set
	gone     chan struct{} // capacity 1: nobody watches something any more
	linger   *time.Timer
	lingers  bool // linger is set
}

// Listening tells the hub which instance the session that listens stands for, 0 when it has ended. Everything watched is
// registered anew, and read after that. It does not block.
func (h *Hub) Listening(instance int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cfg.Registry == nil {
		return
	}
	h.reg.instance, h.reg.failed = instance, false
	h.reg.ids, h.reg.stray = make(map[int64]struct{}), make(map[int64]struct{})
	clear(h.heat.hot)
	if instance != 0 {
		h.reg.last = instance
		// It may be another cluster, in which the transactions of before never end.
		h.reg.settling = settling{}
		clear(h.missed.found)
		h.markAll(true)
	}
}

// registerBatch makes the triggers ring for the audits that are about to be read. What is read because it may be an owner's
// is left out unless it was found: most of it is somebody else's, and offer sees to the rest.
func (h *Hub) registerBatch(ctx context.Context, batch map[int64]mark) {
	h.mu.Lock()
	instance := h.reg.instance
	var ids []int64
	for id, m := range batch {
		if (h.watched[id] != nil || m.found) && h.unregistered(id) {
			ids = append(ids, id)
		}
	}
	h.mu.Unlock()
	if !h.register(ctx, instance, ids) {
		return
	}
	for _, id := range ids { // a change of before had to ring nothing
		m := batch[id]
		m.resync = true
		batch[id] = m
	}
}

// registerBeginners makes the triggers ring for new audits while somebody watches all that an owner has. Whatever began before
// is found after that.
func (h *Hub) registerBeginners(ctx context.Context) {
	h.mu.Lock()
	instance := h.reg.instance
	needed := h.wanted(whateverBegins) && h.unregistered(whateverBegins)
	if needed {
		h.owners.refresh()
	}
	h.mu.Unlock()
	if needed {
		h.register(ctx, instance, []int64{whateverBegins})
	}
}

// unregistered reports whether the triggers should be told of an audit that somebody watches. The caller holds mu.
func (h *Hub) unregistered(id int64) bool {
	_, registered := h.reg.ids[id]
	_, hot := h.heat.hot[id]
	return h.reg.instance != 0 && !h.reg.failed && !registered && !hot
}

// doubt has the next read see to it that all that is watched is registered: install rings for everything when it has made
// the triggers anew, which from then on may look into a table that is empty, or was not there before. The caller holds mu.
func (h *Hub) doubt() {
	h.reg.doubted, h.reg.failed = true, false
}

// settleDoubt counts what is registered, rather than registering all of it: that would be a write and a second read of
// everything each time that somebody rings for everything, which any role can. What a registration that was under way ran
// into is no longer true either.
func (h *Hub) settleDoubt(ctx context.Context) {
	h.mu.Lock()
	doubted := h.reg.doubted
	if doubted {
		h.reg.doubted, h.reg.failed = false, false
	}
	count := doubted && len(h.reg.ids) > 0
	h.mu.Unlock()
	if count {
		h.tidy(ctx)
	}
}

// wanted reports whether somebody watches what is registered under an id. The caller holds mu.
func (h *Hub) wanted(id int64) bool {
	if id == whateverBegins {
		return len(h.owners.groups) > 0
	}
	return h.watched[id] != nil
}

// register registers ids that are about to be read. Whoever commits after the read rings, or was open at the registration,
// which settle sees to. A failure, of which it returns false, stops nothing: the safety net finds changes.
func (h *Hub) register(ctx context.Context, instance int64, ids []int64) bool {
	if len(ids) == 0 {
		return false
	}
	regCtx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	snap, err := h.cfg.Registry.Register(regCtx, instance, ids)
	if ctx.Err() != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logRegistration(err)
	if h.reg.instance != instance {
		return false
	}
	if err != nil {
		h.strayed(ids...)
		return false
	}
	for _, id := range ids {
		h.reg.ids[id] = struct{}{}
		delete(h.reg.stray, id)
	}
	h.reg.settling.registered(ids, snap)
	h.scheduleLook()
	return true
}

// strayed notes what is registered or not: nobody knows. It is registered again if somebody watches it, or else forgotten by
// tidy; it would ring for nobody otherwise. The caller holds mu.
func (h *Hub) strayed(ids ...int64) {
	for _, id := range ids {
		h.reg.stray[id] = struct{}{}
	}
}

// logRegistration logs when registering begins to fail and when it works again. The caller holds mu.
func (h *Hub) logRegistration(err error) {
	if err != nil && !h.reg.warned {
		h.cfg.Logger.Warn("cannot tell the triggers what is watched; unless they always ring, the safety net finds changes. Run auditstream install with --role",
			"error", err)
	}
	if err == nil && h.reg.warned {
		h.cfg.Logger.Info("the triggers are told what is watched again")
	}
	h.reg.failed, h.reg.warned = err != nil, err != nil
}

// scheduleLook sets the timer, or has it fire sooner, never later: registrations may follow each other for ever.
func (h *Hub) scheduleLook() {
	at := time.Now().Add(h.reg.settling.delay)
	if !h.reg.settling.waiting() || !h.reg.lookAt.IsZero() && !at.Before(h.reg.lookAt) {
		return
	}
	h.reg.lookAt = at
	h.reg.look.Reset(h.reg.settling.delay)
}

// settle reads again what a transaction may have changed that was open at the registration and has ended.
func (h *Hub) settle(ctx context.Context) {
	lookCtx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	asked := time.Now()
	snap, err := h.cfg.Registry.Snapshot(lookCtx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reg.lookAt = time.Time{}
	if err != nil { // nothing is known to have ended
		h.reg.settling.backOff()
		h.scheduleLook()
		return
	}
	h.reg.settling.asked = asked
	// Not only what is watched at this moment: who comes back before the safety net finds it registered. Nor only what is
	// known to be registered: after a failure nothing is.
	again := h.reg.settling.look(snap, func(id int64) bool { _, ok := h.reg.ids[id]; return ok || h.wanted(id) })
	for _, id := range again {
		h.missed.announced(id) // what was found may be of one that has ended
	}
	again = slices.DeleteFunc(again, func(id int64) bool { return !h.wanted(id) })
	for _, id := range again {
		if id == whateverBegins {
			h.owners.refresh()
			continue
		}
		h.mark(id, mark{resync: true})
	}
	if len(again) > 0 {
		h.ring()
	}
	h.scheduleLook()
}

// lingerOn sets the timer after which tidy forgets what nobody watches any more.
func (h *Hub) lingerOn() {
	if !h.reg.lingers {
		h.reg.lingers = true
		h.reg.linger.Reset(lingers)
	}
}

// tidy forgets what nobody watches any more. When rows are missing, somebody has installed anew, or the database has
// crashed: all is registered again, by the read that follows.
func (h *Hub) tidy(ctx context.Context) {
	h.mu.Lock()
	instance := h.reg.instance
	gone := []int64{}
	for id := range h.reg.ids {
		if !h.wanted(id) {
			gone = append(gone, id)
			delete(h.reg.ids, id)
		}
	}
	for id := range h.reg.stray {
		if !h.wanted(id) {
			gone = append(gone, id)
		}
	}
	want := len(h.reg.ids)
	h.mu.Unlock()
	if instance == 0 {
		return
	}
	tidyCtx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	left, err := h.cfg.Registry.Unregister(tidyCtx, instance, gone)
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.logRegistration(err)
		h.reg.failed = false
	}
	if h.reg.instance != instance {
		return // all is registered anew
	}
	if err != nil {
		h.strayed(gone...)
	} else {
		for _, id := range gone {
			delete(h.reg.stray, id)
		}
	}
	if err != nil || left < want {
		h.strayed(slices.Collect(maps.Keys(h.reg.ids))...)
		h.reg.ids = make(map[int64]struct{})
		if err == nil {
			h.markAll(true)
		}
	}
}

// forgetAll forgets all of this instance's: it is being stopped, and so is the listener, which may have ended before.
func (h *Hub) forgetAll(ctx context.Context) {
	h.mu.Lock()
	instance := h.reg.last
	h.mu.Unlock()
	if instance == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	_, err := h.cfg.Registry.Unregister(ctx, instance, nil)
	if err != nil {
		h.cfg.Logger.Debug("what was watched stays registered until another instance removes it", "error", err)
	}
}
