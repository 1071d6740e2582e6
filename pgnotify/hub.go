package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Loader reads the committed state of audits. An id without a row is absent from the answer.
type Loader interface {
	Audits(ctx context.Context, ids []int64) ([]*store.State, error)
}

// Finder finds the ids of the audits that may belong to one of the owners and have not ended. It must miss none; what it
// finds is read before it is believed.
type Finder interface {
	Owned(ctx context.Context, owners []store.Owner) ([]int64, error)
}

// HubConfig configures a Hub. Zero means the default.
type HubConfig struct {
	// Loader is required.
	Loader Loader
	// Registry is told what is watched, when a Listener says that it listens. Nil: the triggers ring for everything.
	Registry Registry
	// NoPolling leaves audits registered that ring so often that concurrent writers wait for each other's commits.
	// Otherwise those are read on a timer of 150 ms while it lasts.
	NoPolling bool
	// Finder is required by SubscribeOwned alone.
	Finder Finder
	// Interval of the safety net, the read of all watched audits that finds what no notification announced; default
	// 10 s. Each is up to 10 % shorter at random, so that several instances do not read in step.
	Interval time.Duration
	// ReadTimeout bounds one read; default 5 s.
	ReadTimeout time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the hub's metrics; nil: none.
	Registerer prometheus.Registerer
	// Tracer receives a span for each read; nil: none are made.
	Tracer trace.TracerProvider
}

const (
	readRetryMin = 100 * time.Millisecond
	readRetryMax = time.Second
)

// Hub knows who watches what, and hands out states. All methods are safe for concurrent use.
type Hub struct {
	cfg     HubConfig
	metrics hubMetrics
	wake    chan struct{} // capacity 1: a reader only needs to know that there is work, not how much
	arrived chan struct{} // capacity 1: somebody has subscribed, whose read may wait a little for others'
	lookups lookups

	mu        sync.Mutex
	watched   map[int64]*watch
	dirty     map[int64]mark // ids to read; a subset of watched
	takes     uint64         // how many batches Run has taken
	newcomers int            // subscribers since the last batch
	failure   error          // why the last read failed; nil after one that succeeded
	missed    missedChanges
	reg       registration
	heat      heat
	owners    owners
}

// watch is one audit that at least one subscriber watches.
type watch struct {
	since uint64 // Hub.takes when it began: earlier batches are not for it
	subs  []*subscription
	last  *store.State // what every opened subscriber was last given; nil until the first read
	warmth
}

// mark says why an id is dirty.
type mark struct {
	noticed time.Time // arrival of the first notification since the last read; zero: none
	resync  bool      // notifications may have been lost: a change proves nothing about triggers
	found   bool      // it is in the batch because it was found for an owner
}

// subscription is one stream's place in the hub. Its fields are guarded by Hub.mu, the channels are not.
type subscription struct {
	id     int64
	index  int               // in watch.subs
	since  uint64            // Hub.takes at registration: earlier batches may have read too early
	group  *group            // whose slot it shares; nil: it has one of its own, and the fields below
	opened chan struct{}     // closed by the hub when the first state is in the slot
	slot   chan *store.State // capacity 1: the newest state that the stream has not taken yet
	wake   func()            // called after the slot is filled; may be nil
	open   bool              // the first state is in the slot, or has been
}

// NewHub returns a Hub that does nothing until Run.
func NewHub(cfg HubConfig) (*Hub, error) {
	if cfg.Loader == nil {
		return nil, errors.New("pgnotify: HubConfig.Loader is required")
	}
	if cfg.Interval < 0 || cfg.ReadTimeout < 0 {
		return nil, errors.New("pgnotify: HubConfig.Interval and ReadTimeout must not be negative")
	}
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tracer != nil {
		cfg.Loader = traced(cfg.Loader, cfg.Tracer)
	}
	h := &Hub{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		arrived: make(chan struct{}, 1),
		watched: make(map[int64]*watch),
		dirty:   make(map[int64]mark),
		heat:    newHeat(),
		owners:  newOwners(),
	}
	h.reg.gone = make(chan struct{}, 1)
	h.reg.look, h.reg.linger = stoppedTimer(), stoppedTimer()
	h.lookups.read = h.lookUp
	h.metrics = newHubMetrics(h, cfg.Registerer)
	h.missed = missedChanges{found: make(map[int64]time.Time), counter: h.metrics.missed, logger: cfg.Logger}
	return h, nil
}

// Subscribe watches an audit. It returns once the first state is in the channel: one read from the database after
// Subscribe was called, also when there is no such row. From then on the channel holds the newest state that was not
// taken yet, except that a terminal state is not replaced. It is never closed. The caller must call cancel, once, when
// it stops watching; cancel does not block.
//
// A subscriber without a goroutine that waits on the channel passes wake, which is called whenever there is a state in it,
// from the first on and not after cancel. It must not block, nor call the hub.
//
// When ctx ends before the first read succeeds the error says so, with the cause of the last failed read.
func (h *Hub) Subscribe(ctx context.Context, id int64, wake func()) (states <-chan *store.State, cancel func(), err error) {
	sub := &subscription{id: id, opened: make(chan struct{}), slot: make(chan *store.State, 1), wake: wake}
	h.add(sub)
	select {
	case <-sub.opened:
		return sub.slot, func() { h.remove(sub) }, nil
	case <-ctx.Done():
		h.remove(sub)
		return nil, nil, h.notOpened(ctx)
	}
}

func (h *Hub) notOpened(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Errorf("first read: %w", errors.Join(context.Cause(ctx), h.failure, h.owners.failure))
}

// Notify marks an audit dirty because a notification said that it changed. It never blocks on the database or on a
// subscriber. Ids that nobody watches cost a map look-up.
func (h *Hub) Notify(id int64) { h.notify(id, true) }

// NotifyAgain is Notify for the notification of a change that has probably been counted: it is read as any, but that changes are
// many is not concluded from it.
func (h *Hub) NotifyAgain(id int64) { h.notify(id, false) }

func (h *Hub) notify(id int64, counts bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missed.announced(id)
	w, ok := h.watched[id]
	if !ok {
		if h.owners.suspect(id) {
			h.ring()
		}
		return
	}
	now := time.Now()
	if h.rang(id, w, now, counts) {
		return
	}
	m := h.dirty[id]
	if m.noticed.IsZero() {
		m.noticed = now
	}
	h.dirty[id] = m
	h.ring()
}

// Resync marks every watched audit dirty, and has the registrations looked after: notifications may have been lost. It does
// not block.
func (h *Hub) Resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.doubt()
	clear(h.missed.found) // they may have been announced to nobody
	h.markAll(true)
}

func (h *Hub) markAll(resync bool) {
	for id := range h.watched {
		m := h.dirty[id]
		m.resync = m.resync || resync
		h.dirty[id] = m
	}
	if h.owners.refresh() || len(h.dirty) > 0 {
		h.ring()
	}
}

func (h *Hub) ring() {
	select {
	case h.wake <- struct{}{}:
	default: // already ringing
	}
}

func (h *Hub) add(sub *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.join(sub)
	if _, ok := h.dirty[sub.id]; !ok { // a mark that is there says more
		h.dirty[sub.id] = mark{}
	}
	h.arrive()
}

// join makes a subscription one of those who watch its audit. The caller holds mu.
func (h *Hub) join(sub *subscription) *watch {
	w := h.watched[sub.id]
	if w == nil {
		w = &watch{since: h.takes}
		h.watched[sub.id] = w
	}
	sub.index = len(w.subs)
	sub.since = h.takes
	w.subs = append(w.subs, sub)
	return w
}

// arrive counts a subscriber whose first read is to come. The caller holds mu.
func (h *Hub) arrive() {
	h.newcomers++
	select {
	case h.arrived <- struct{}{}:
	default: // others have just come
	}
}

func (h *Hub) remove(sub *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leave(sub)
}

// leave undoes join. The caller holds mu.
func (h *Hub) leave(sub *subscription) {
	w := h.watched[sub.id]
	end := len(w.subs) - 1
	w.subs[sub.index] = w.subs[end]
	w.subs[sub.index].index = sub.index
	w.subs[end] = nil
	w.subs = w.subs[:end]
	if end == 0 {
		if !h.dirty[sub.id].noticed.IsZero() {
			h.owners.suspect(sub.id)
		}
		delete(h.watched, sub.id)
		delete(h.dirty, sub.id)
		h.left()
	}
}

// left has what nobody watches any more forgotten after a while.
func (h *Hub) left() {
	select {
	case h.reg.gone <- struct{}{}:
	default: // others have just left
	}
}

// Run reads what is dirty until ctx is done, and returns nil. It must run exactly once.
func (h *Hub) Run(ctx context.Context) error {
	tick := time.NewTimer(h.untilTick())
	defer tick.Stop()
	var settle <-chan time.Time // set while changes wait for their notification
	for {
		select {
		case <-ctx.Done():
			h.forgetAll(ctx)
			return nil
		case <-h.wake:
			h.readUntilClean(ctx)
		case <-h.reg.look.C:
			h.settle(ctx)
		case <-h.reg.gone:
			h.lingerOn()
		case <-h.reg.linger.C:
			h.reg.lingers = false
			h.tidy(ctx)
		case <-h.heat.started:
			h.takeOffSoon()
		case <-h.heat.off.C:
			h.takeOffNow(ctx)
		case <-h.heat.timer.C:
			h.pollAndRead(ctx)
		case <-h.arrived:
			h.gather(ctx)
			h.readUntilClean(ctx)
		case <-tick.C:
			h.mu.Lock()
			h.reg.failed = false // once more
			h.mu.Unlock()
			h.tidy(ctx)
			h.mu.Lock()
			h.markAll(false)
			h.mu.Unlock()
			tick.Reset(h.untilTick())
		case <-settle:
			settle = nil
		}
		if settle == nil && h.settleMissed() {
			settle = time.After(announceGrace)
		}
	}
}

func (h *Hub) settleMissed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.missed.settle(h.reg.settling.undecided)
}

func stoppedTimer() *time.Timer {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}

func (h *Hub) untilTick() time.Duration {
	return h.cfg.Interval - rand.N(h.cfg.Interval/10+1)
}

// readUntilClean reads the dirty ids, and again after a failure, until a read succeeds. Meanwhile marks gather.
func (h *Hub) readUntilClean(ctx context.Context) {
	for delay := readRetryMin; ; delay = min(2*delay, readRetryMax) {
		err := h.read(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay/2)):
		}
	}
}
