package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Loader reads the committed state of rows. A key without a row is absent from the answer.
type Loader interface {
	Audits(ctx context.Context, keys []store.Key) ([]*store.State, error)
}

// Finder finds the keys of the rows that may belong to one of the owners and have not ended. It must miss none; what it
// finds is read before it is believed.
type Finder interface {
	Owned(ctx context.Context, owners []store.Owner) ([]store.Key, error)
}

// HubConfig configures a Hub. Zero means the default.
type HubConfig struct {
	// Loader is required.
	Loader Loader
	// Finder is required by SubscribeOwned alone.
	Finder Finder
	// Interval of the safety net; default 10 s. Each is up to 10 % shorter at random, so that instances do not read in step.
	Interval time.Duration
	// NoFlood has changes announced however many they are. By default they are read on a timer while they are so many that writers
	// would wait for each other.
	NoFlood bool
	// ReadTimeout bounds one read; default 5 s.
	ReadTimeout time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the hub's metrics; nil: none.
	Registerer prometheus.Registerer
}

// Hub knows who watches what, and hands out states. All methods are safe for concurrent use.
type Hub struct {
	cfg       HubConfig
	announcer Announcer
	wake      bell // there is something to read
	metrics   hubMetrics
	pace      pace // Run's

	mu       sync.Mutex
	resynced time.Time
	stale    bool // a Resync follows
	entries  map[store.Key]*entry
	dirty    [urgent + 1][]*entry
	reads    uint64 // how many have begun
	inVain   int    // notifications of what nobody watches, since pace was told
	owned    owned
	missed   missed
	failure  error // why the last read failed; nil after one that succeeded
}

// entry is everything that the hub knows about one row.
type entry struct {
	key     store.Key
	members []*member
	state   *store.State // what each open member was last given; nil: nothing yet
	wanted  int          // members that are known to be their viewers'
	dirty   dirt
	noticed time.Time // arrival of the first notification since the last read; zero: none
	known   bool      // a change without a notification proves nothing
	silent  time.Time // when a change was found that nothing announced; zero: none
	finds   []*find   // that wait for its read
	counted time.Time // when a read of it was last counted by pace
}

// dirt is how soon an entry is to be read.
type dirt uint8

const (
	clean   dirt = iota
	routine      // by the safety net
	soon         // because it may have changed
	urgent       // because of a notification or a new subscriber
)

// NewHub returns a Hub that does nothing until Run, and announces nothing until Announce.
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
	h := &Hub{cfg: cfg, announcer: everything{}, wake: newBell(), entries: make(map[store.Key]*entry), owned: newOwned(), pace: newPace(cfg.Interval, cfg.NoFlood)}
	h.metrics = newHubMetrics(h, cfg.Registerer)
	return h, nil
}

// Announce has writers told of what is watched from now on. Without it the hub expects that all changes are announced. It must be
// called before anything else.
func (h *Hub) Announce(a Announcer) { h.announcer = a }

// maxBegun is how many rows may wait that nobody watches and that may have begun. Beyond it the owners' rows are found instead:
// one INSERT can announce millions, and any role can.
const maxBegun = 10 * maxRead

// inVainTold is after how many notifications of what nobody watches pace is told.
const inVainTold = 50

// Notify marks a row dirty because a notification said that it changed. It does not block. Keys that nobody watches cost a map
// look-up, unless somebody watches all of an owner's: then it may be one that has begun.
func (h *Hub) Notify(key store.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.entries[key]
	if e == nil {
		if h.inVain++; h.inVain%inVainTold == 0 {
			h.wake.ring()
		}
		if !h.owned.mayBegin() {
			return
		}
		if len(h.dirty[soon]) >= maxBegun {
			h.owned.refresh()
			return
		}
		e = h.add(key)
	}
	if e.noticed.IsZero() {
		e.noticed = time.Now()
	}
	e.silent = time.Time{}
	if len(e.members) == 0 {
		h.soil(e, soon)
		return
	}
	h.soil(e, urgent)
}

// resyncInterval is the time between two reads of all that is watched that Resync can cause: any role of the database can send
// "*" as often as it likes.
const resyncInterval = time.Second

// Resync has all that is watched read: notifications may have been lost. It does not block. Calls that follow too soon are one, later.
func (h *Hub) Resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch wait := time.Until(h.resynced.Add(resyncInterval)); {
	case wait <= 0:
		h.resynced = time.Now()
		h.mark(func(store.Key) bool { return true })
	case !h.stale:
		h.stale = true
		time.AfterFunc(wait, func() {
			h.mu.Lock()
			h.stale = false
			h.mu.Unlock()
			h.Resync()
		})
	}
}

// Mark has read what is watched and chosen, Beginning among it, because its changes may not have been announced. It does not block.
func (h *Hub) Mark(chosen func(key store.Key) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mark(chosen)
}

// mark is Mark. The caller holds mu.
func (h *Hub) mark(chosen func(key store.Key) bool) {
	for key, e := range h.entries {
		if chosen(key) {
			e.known, e.silent = true, time.Time{}
			h.soil(e, soon)
		}
	}
	if chosen(Beginning) {
		h.owned.refresh()
	}
}

// add makes an entry. The caller holds mu.
func (h *Hub) add(key store.Key) *entry {
	e := &entry{key: key}
	h.entries[key] = e
	return e
}

// soil marks an entry dirty, and never as less urgent than it is. The caller holds mu.
func (h *Hub) soil(e *entry, d dirt) {
	if e.dirty >= d {
		return
	}
	e.dirty = d
	h.dirty[d] = append(h.dirty[d], e)
	h.wake.ring()
}

// Run reads what is dirty until ctx is done, and returns nil. It must run exactly once.
func (h *Hub) Run(ctx context.Context) error {
	round := time.NewTimer(h.pace.next())
	defer round.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-round.C:
			h.round()
			round.Reset(h.pace.next())
		}
		if h.read(ctx) {
			h.wake.ring() // there may be more
		}
		if h.pace.look(h.takeInVain()) {
			h.announcer.Flood(h.pace.flooded())
			round.Reset(h.pace.next())
		}
	}
}

// round has everything read that is watched, unless the last round still goes on.
func (h *Hub) round() {
	h.mu.Lock()
	if len(h.dirty[routine]) > 0 {
		h.mu.Unlock()
		return
	}
	h.pace.round()
	for _, e := range h.entries {
		h.settle(e)
		h.soil(e, routine)
	}
	missed := h.missed.toSay()
	h.owned.refresh()
	h.mu.Unlock()
	if missed > 0 {
		h.cfg.Logger.Warn("changes were found that no notification announced; is a trigger missing or disabled, or LISTEN blocked by a pooler? Run auditstream doctor: it says which, and what to do",
			"changes", missed)
	}
}

func (h *Hub) takeInVain() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.inVain
	h.inVain = 0
	return n
}

// watched is how many rows somebody watches.
func (h *Hub) watched() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries)
}

func (h *Hub) notOpened(ctx context.Context, s *Subscription) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	failure := h.failure
	if s.owners != nil {
		failure = errors.Join(failure, h.owned.failure)
	}
	return fmt.Errorf("first read: %w", errors.Join(context.Cause(ctx), failure))
}
