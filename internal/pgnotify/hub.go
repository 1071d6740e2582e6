package pgnotify

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Loader reads the committed state of rows. A key without a row is absent from the answer.
type Loader interface {
	Audits(ctx context.Context, keys []store.Key) ([]*store.State, error)
}

// Finder finds the keys of the rows that may belong to one of the owners and have not ended, and which owners have more than it returns. It
// must miss none else; what it finds is read before it is believed.
type Finder interface {
	Owned(ctx context.Context, owners []store.Owner) (keys []store.Key, more []store.Owner, err error)
}

// Announcer tells writers what is watched; a [FeedAnnouncer] is one. Its methods do not block.
type Announcer interface {
	// Attach is called once, by NewHub. From then on mark, which does not block, is called with what is true of each key whose changes
	// may not have been announced.
	Attach(mark func(chosen func(key store.Key) bool))
	// Want says that somebody watches a key, also when others do. When its changes begin to be announced, mark has it read.
	Want(key store.Key)
	// Leave ends one Want.
	Leave(key store.Key)
	// Announced reports whether each change of a key is announced.
	Announced(key store.Key) bool
	// Flood says whether changes are so many that announcing them makes writers wait for each other.
	Flood(flooded bool)
}

// HubConfig configures a Hub. Zero means the default.
type HubConfig struct {
	// Feed is what the rows are of; nil: store.Audits.
	Feed *store.Feed
	// Loader and Announcer are required.
	Loader    Loader
	Announcer Announcer
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
	cfg     HubConfig
	wake    Bell // there is something to read
	metrics hubMetrics
	resyncs Throttle
	pace    pace // Run's, as are the next three
	reading Trouble
	missed  int // changes that nothing announced, since it was logged
	warned  time.Time
	finding Trouble // Find's

	mu      sync.Mutex
	entries map[store.Key]*entry
	dirty   [urgent + 1][]*entry
	reads   uint64 // how many have begun
	owned   owned
	failure error // why the last read failed; nil after one that succeeded
	retired bool
}

// entry is everything that the hub knows about one row.
type entry struct {
	key     store.Key
	members map[*Subscription]*member
	state   *store.State // what each open member was last given; nil: nothing yet
	wanted  int          // members that are known to be their viewers'
	cause
	read    cause     // what the read that is under way is because of
	silent  time.Time // when a change was found that nothing announced; zero: none
	finds   []*find   // that wait for its read
	counted time.Time // when a read of it was last counted by pace
}

// cause is why an entry is to be read.
type cause struct {
	dirty   dirt
	known   bool      // a change without a notification proves nothing
	noticed time.Time // arrival of the first notification since the last read; zero: none
}

// dirt is how soon an entry is to be read.
type dirt uint8

const (
	clean   dirt = iota
	routine      // by the safety net
	soon         // because it may have changed
	urgent       // because of a notification or a new subscriber
)

// NewHub returns a Hub that does nothing until Run.
func NewHub(cfg HubConfig) (*Hub, error) {
	if cfg.Loader == nil || cfg.Announcer == nil {
		return nil, errors.New("pgnotify: HubConfig.Loader and Announcer are required")
	}
	if min(cfg.Interval, cfg.ReadTimeout) < 0 {
		return nil, errors.New("pgnotify: HubConfig.Interval and ReadTimeout must not be negative")
	}
	cfg.Feed = cmp.Or(cfg.Feed, store.Audits)
	cfg.Interval = cmp.Or(cfg.Interval, 10*time.Second)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, 5*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	h := &Hub{cfg: cfg, wake: NewBell(), entries: make(map[store.Key]*entry), owned: newOwned(), pace: pace{interval: cfg.Interval, never: cfg.NoFlood}}
	h.metrics = newHubMetrics(h, cfg.Registerer)
	cfg.Announcer.Attach(h.Mark)
	return h, nil
}

// maxBegun is how many rows may wait that nobody watches and that may have begun. Beyond it the owners' rows are found instead:
// one INSERT can announce millions, and any role can.
const maxBegun = 10 * maxRead

// Notify marks a row dirty because a notification said that it changed. It does not block. Keys that nobody watches cost a map
// look-up, unless somebody watches all of an owner's: then it may be one that has begun.
func (h *Hub) Notify(key store.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.entries[key] == nil {
		if h.pace.inVain() {
			h.wake.Ring()
		}
		if full := len(h.dirty[soon]) >= maxBegun; full || len(h.owned.subs) == 0 {
			h.owned.refresh()
			return
		}
	}
	e := h.entry(key)
	if e.noticed.IsZero() {
		e.noticed = time.Now()
	}
	e.silent = time.Time{}
	d := urgent
	if len(e.members) == 0 {
		d = soon
	}
	h.soil(e, d)
}

// Resync has all that is watched read, once a second at most: notifications may have been lost. It does not block.
func (h *Hub) Resync() {
	h.resyncs.Do(func() { h.Mark(func(store.Key) bool { return true }) })
}

// Mark has read what is watched and chosen, Beginning among it, because its changes may not have been announced. It does not block.
func (h *Hub) Mark(chosen func(key store.Key) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
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

// entry returns a row's, which it makes where there is none. The caller holds mu.
func (h *Hub) entry(key store.Key) *entry {
	e := h.entries[key]
	if e == nil {
		e = &entry{key: key, members: make(map[*Subscription]*member)}
		h.entries[key] = e
	}
	return e
}

// soil marks an entry dirty, and never as less urgent than it is. The caller holds mu.
func (h *Hub) soil(e *entry, d dirt) {
	if e.dirty < d {
		e.dirty = d
		h.dirty[d] = append(h.dirty[d], e)
		h.wake.Ring()
	}
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
			h.wake.Ring() // there may be more
		}
		if h.pace.look() {
			h.cfg.Announcer.Flood(h.pace.flooded())
			round.Reset(h.pace.next())
		}
	}
}

// announceGrace is how long a notification may trail the read that already saw its change.
const announceGrace = 2 * time.Second

// round has everything read that is watched, unless the last round still goes on. It counts the changes whose notifications should
// have come by now: the sign of a lost or disabled trigger, or of a LISTEN that does not work.
func (h *Hub) round() {
	h.mu.Lock()
	if len(h.dirty[routine]) > 0 {
		h.mu.Unlock()
		return
	}
	h.pace.cost, h.pace.spent = h.pace.spent, 0
	for _, e := range h.entries {
		if !e.silent.IsZero() && time.Since(e.silent) >= announceGrace {
			e.silent = time.Time{}
			h.missed++
			h.metrics.missed.Inc()
		}
		h.soil(e, routine)
	}
	h.owned.refresh()
	h.mu.Unlock()
	if h.missed > 0 && time.Since(h.warned) >= time.Minute {
		h.cfg.Logger.Warn("changes were found that no notification announced; is a trigger missing or disabled, or LISTEN blocked by a pooler? Run auditstream doctor: it says which, and what to do",
			"changes", h.missed)
		h.missed, h.warned = 0, time.Now()
	}
}
