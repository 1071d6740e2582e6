package pgnotify

import (
	"context"
	"time"
)

// Interrupts when idle, polling under load, as network drivers do: NOTIFY makes the commits of concurrent writers wait for
// each other, so an audit that keeps ringing while much else rings is taken off the registry and read on a short timer,
// together with all others like it. When it has been still for a while it is registered again.
const (
	// hotWindow is over which rings are counted.
	hotWindow = time.Second
	// hotTotal is from how many changes within the window, or the one before, on there is a load at all. Below, nobody's
	// commits wait long enough to be worth a viewer's milliseconds, however often a single audit changes.
	hotTotal = 50
	// hotRings within the window make an audit hot; one does from hotFlood changes in all on: of very many audits each may
	// ring seldom.
	hotRings = 4
	hotFlood = 300
	// hotInterval is the time between two reads of what is hot, unless a read takes so long that this would keep the
	// database reading for more than half of the time: under a load most of that is waiting for a processor.
	hotInterval = 150 * time.Millisecond
	// hotGather is how long the first one that gets hot waits for others, to be taken off the registry together.
	hotGather = 20 * time.Millisecond
	hotRest   = 1
	// hotStill is for how long a hot audit must not have changed to be registered again. While there is a flood none is: it
	// would only be taken off again.
	hotStill = 2 * time.Second
)

// heat counts changes, and knows what is read on the timer instead. Guarded by Hub.mu, but for the last four, which are Run's.
type heat struct {
	window  int64     // number of the current window
	began   time.Time // of the current window
	load    int       // rings, and changes found by the timer's reads, in the current window
	before  int       // in the one before
	hot     map[int64]*hotAudit
	started chan struct{} // capacity 1: something has become hot
	timer   *time.Timer   // for the next read
	armed   bool          // timer is set
	off     *time.Timer   // for taking off what has become hot
	offSet  bool          // off is set
}

type hotAudit struct {
	changed      time.Time // when a read last found a change
	unregistered bool
}

// warmth is how often one audit has rung in a window.
type warmth struct {
	window int64
	rings  int
}

func newHeat() heat {
	return heat{hot: make(map[int64]*hotAudit), started: make(chan struct{}, 1), timer: stoppedTimer(), off: stoppedTimer()}
}

// count notes a change.
func (t *heat) count(now time.Time) {
	t.turn(now)
	t.load++
}

// turn begins a new window when the current one is over.
func (t *heat) turn(now time.Time) {
	age := now.Sub(t.began)
	if age < hotWindow {
		return
	}
	t.before = t.load
	if age >= 2*hotWindow {
		t.before = 0 // there was one without changes
	}
	t.window++
	t.began, t.load = now, 0
}

// lately is the load of this window or the one before, whichever was more.
func (t *heat) lately() int { return max(t.before, t.load) }

// rang counts a notification of a watched audit, if it is to be counted, and says whether its news come by the timer. The caller
// holds mu.
func (h *Hub) rang(id int64, w *watch, now time.Time, counts bool) bool {
	if h.cfg.Registry == nil || h.cfg.NoPolling {
		return false
	}
	t := &h.heat
	if _, ok := t.hot[id]; ok {
		return t.hot[id].unregistered // somebody else's registration, or a writer that looked before
	}
	if !counts {
		return false
	}
	t.count(now)
	if w.warmth.window != t.window {
		w.warmth = warmth{window: t.window}
	}
	w.warmth.rings++
	switch {
	case t.load == hotFlood: // it begins: whatever has rung goes on ringing
		for id, w := range h.watched {
			if w.warmth.rings > 0 && w.warmth.window >= t.window-1 {
				h.heatUp(id, now)
			}
		}
	case t.lately() >= hotFlood || t.lately() >= hotTotal && w.warmth.rings >= hotRings:
		h.heatUp(id, now)
	}
	return false
}

// heatUp has an audit that is registered taken off, and read on the timer. The caller holds mu.
func (h *Hub) heatUp(id int64, now time.Time) {
	t := &h.heat
	if _, registered := h.reg.ids[id]; !registered || t.hot[id] != nil {
		return
	}
	t.hot[id] = &hotAudit{changed: now}
	select {
	case t.started <- struct{}{}:
	default:
	}
}

// takeOffSoon sets the timer after which takeOffNow takes off what has become hot.
func (h *Hub) takeOffSoon() {
	if !h.heat.offSet {
		h.heat.offSet = true
		h.heat.off.Reset(hotGather)
	}
}

// takeOffNow takes off what has become hot, which the timer's next turn reads: sooner than that turn, because it rings until
// then, and without reading all that is hot for each that becomes so.
func (h *Hub) takeOffNow(ctx context.Context) {
	h.heat.offSet = false
	h.mu.Lock()
	instance := h.reg.instance
	var off []int64
	for id, a := range h.heat.hot {
		if !a.unregistered {
			off = append(off, id)
		}
	}
	h.mu.Unlock()
	if len(off) == 0 || instance == 0 {
		return
	}
	h.takeOff(ctx, instance, off)
	h.arm(hotInterval)
}

// poll gives back to the registry what is still, and marks the rest to be read. It returns false when nothing is hot any more.
func (h *Hub) poll() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	instance := h.reg.instance
	now := time.Now()
	h.heat.turn(now)
	flooded := h.heat.lately() >= hotFlood
	for id, a := range h.heat.hot {
		switch {
		case h.watched[id] == nil || instance == 0:
			delete(h.heat.hot, id) // whoever comes back registers it
		case a.unregistered && !flooded && now.Sub(a.changed) >= hotStill:
			delete(h.heat.hot, id)
			h.mark(id, mark{resync: true}) // registered by this read, and then read
		default:
			h.mark(id, mark{})
		}
	}
	return len(h.heat.hot) > 0
}

// takeOff unregisters what has become hot. When that fails it goes on ringing, and the safety net's next turn sees to it.
func (h *Hub) takeOff(ctx context.Context, instance int64, ids []int64) {
	offCtx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	_, err := h.cfg.Registry.Unregister(offCtx, instance, ids)
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reg.instance != instance {
		return // all is registered anew
	}
	for _, id := range ids {
		a := h.heat.hot[id]
		if a == nil {
			continue
		}
		if err != nil {
			delete(h.heat.hot, id) // it may be registered or not
			delete(h.reg.ids, id)
			h.strayed(id)
			h.mark(id, mark{resync: true})
			continue
		}
		a.unregistered = true
		delete(h.reg.ids, id)
		delete(h.reg.stray, id)
	}
	if err != nil {
		h.logRegistration(err)
	}
}

// mark adds to why an audit is to be read. The caller holds mu, and rings when nobody reads anyway.
func (h *Hub) mark(id int64, why mark) {
	m := h.dirty[id]
	m.resync = m.resync || why.resync
	h.dirty[id] = m
}

// arm sees to what has just become hot: with the timer's next turn, so that each new one does not cost a read of all.
func (h *Hub) arm(d time.Duration) {
	if !h.heat.armed {
		h.heat.armed = true
		h.heat.timer.Reset(d)
	}
}

// pollAndRead is one turn of the timer.
func (h *Hub) pollAndRead(ctx context.Context) {
	h.heat.armed = false
	more := h.poll()
	start := time.Now()
	h.readUntilClean(ctx)
	if more {
		h.arm(max(hotInterval, hotRest*time.Since(start)))
	}
}

func (h *Hub) hotCount() float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return float64(len(h.heat.hot))
}
