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

// Loader reads the committed state of rows. A key without a row is absent from the result.
type Loader interface {
	Rows(ctx context.Context, keys []store.Key) ([]*store.State, error)
}

// Finder returns the keys of the rows that have not ended and may belong to one of the owners, and the owners who have more rows than it
// returns. It must miss no other row, but may return rows of others: the hub reads each row before it shows it.
type Finder interface {
	Owned(ctx context.Context, owners []store.Owner) (keys []store.Key, more []store.Owner, err error)
}

// Announcer makes writers notify of changes of the watched keys. [FeedAnnouncer] implements it. Its methods do not block.
type Announcer interface {
	// Attach gives the announcer the hub's method Mark, which does not block. NewHub calls Attach once. The announcer calls mark when
	// changes may not have been announced, with a function that is true for their keys.
	Attach(mark func(chosen func(key store.Key) bool))
	// Want says that somebody watches a key. It counts: each Want needs a Leave. When changes of the key begin to be announced, the
	// announcer calls mark for it.
	Want(key store.Key)
	// Leave takes back one Want.
	Leave(key store.Key)
	// Announced reports whether writers notify of every change of a key.
	Announced(key store.Key) bool
	// Flood says that a flood of changes begins or ends. During a flood nothing is announced, because notifying would make writers wait
	// for each other.
	Flood(flooded bool)
}

// HubConfig configures a Hub. Zero means the default.
type HubConfig struct {
	// Feed is the feed of the rows; nil means store.Audits.
	Feed *store.Feed
	// Loader and Announcer are required.
	Loader    Loader
	Announcer Announcer
	// Finder is required only for SubscribeOwned.
	Finder Finder
	// Interval is the poll interval of the safety net, which reads all that is watched; default 10 s. Each interval is up to 10 % shorter
	// at random, so that instances do not read in step.
	Interval time.Duration
	// NoFlood turns off the reaction to a flood: changes are announced however many they are. By default, while changes are so many that
	// writers would wait for each other, the hub reads what is watched on a short timer instead.
	NoFlood bool
	// ReadTimeout bounds one read; default 5 s.
	ReadTimeout time.Duration
	// Logger's default discards.
	Logger *slog.Logger
	// Registerer receives the hub's metrics; nil: none.
	Registerer prometheus.Registerer
}

// Hub knows who watches what, reads what has changed, and hands out the states. All methods are safe for concurrent use.
type Hub struct {
	cfg            HubConfig
	wake           Bell // something is dirty
	metrics        hubMetrics
	resyncThrottle Throttle
	pace           pace // only Run touches this and the next three
	readTrouble    Trouble
	missedChanges  int       // changes that no notification announced, since the last log message about them
	missedLogged   time.Time // when that message was
	findTrouble    Trouble   // only Find touches this

	mu        sync.Mutex // guards the fields below
	entries   map[store.Key]*entry
	dirty     [urgent + 1][]*entry // a queue for each urgency
	reads     uint64               // how many reads have begun
	byOwner   ownerSubscriptions
	readError error // why the last read failed; nil after a success
	feedGone  bool  // Retire was called
}

// entry is everything that the hub knows about one row. The hub's mu guards it.
type entry struct {
	key         store.Key
	members     map[*Subscription]*member
	state       *store.State   // what each started member was last given; nil: nothing yet
	confirmed   int            // how many members' subscriptions are confirmed
	cause                      // why it is dirty
	reading     cause          // why the current read includes it
	unannounced time.Time      // when a read found a change that no notification had announced; zero: none
	searches    []*ownerSearch // the searches that wait until it was read
	lastCounted time.Time      // when pace last counted a read of it
}

// cause is why an entry is to be read.
type cause struct {
	dirty   urgency
	excused bool      // a change that the read finds needs no notification, so do not count it as missed
	noticed time.Time // when the first notification since the last read arrived; zero: none
}

// urgency is how soon an entry is to be read.
type urgency uint8

const (
	clean   urgency = iota // it is not
	routine                // the safety net reads it
	soon                   // it may have changed
	urgent                 // a notification or a new subscriber waits for it
)

// NewHub returns a Hub that reads nothing until Run.
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
	h := &Hub{cfg: cfg, wake: NewBell(), entries: make(map[store.Key]*entry), byOwner: newOwnerSubscriptions(),
		pace: pace{interval: cfg.Interval, noFlood: cfg.NoFlood}}
	h.metrics = newHubMetrics(h, cfg.Registerer)
	cfg.Announcer.Attach(h.Mark)
	return h, nil
}

// maxUnwatched is how many rows that nobody watches may wait to be read because they may be new rows of a watched owner. Beyond it, the
// hub asks the Finder for the owners' rows instead, which is bounded: one INSERT, or any role, can announce millions of rows.
const maxUnwatched = 10 * maxRead

// Notify marks a row dirty because a notification says that it has changed. It does not block. A key that nobody watches costs a map
// look-up; but while somebody watches all rows of an owner, it is read, because it may be a new one of them.
func (h *Hub) Notify(key store.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.entries[key] == nil {
		if h.pace.countUnwatched() {
			h.wake.Ring()
		}
		if full := len(h.dirty[soon]) >= maxUnwatched; full || len(h.byOwner.subs) == 0 {
			h.byOwner.findAll()
			return
		}
	}
	e := h.entry(key)
	if e.noticed.IsZero() {
		e.noticed = time.Now()
	}
	e.unannounced = time.Time{}
	d := urgent
	if len(e.members) == 0 {
		d = soon
	}
	h.markDirty(e, d)
}

// Resync marks all that is watched dirty, once a second at most, because notifications may have been lost. It does not block.
func (h *Hub) Resync() {
	h.resyncThrottle.Do(func() { h.Mark(func(store.Key) bool { return true }) })
}

// Mark marks the watched keys for which chosen is true dirty, because their changes may not have been announced. When chosen(NewRows) is
// true, the Finder is asked again, too. It does not block.
func (h *Hub) Mark(chosen func(key store.Key) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, e := range h.entries {
		if chosen(key) {
			e.excused, e.unannounced = true, time.Time{}
			h.markDirty(e, soon)
		}
	}
	if chosen(NewRows) {
		h.byOwner.findAll()
	}
}

// entry returns the entry of a key, and makes it if there is none. The caller holds mu.
func (h *Hub) entry(key store.Key) *entry {
	e := h.entries[key]
	if e == nil {
		e = &entry{key: key, members: make(map[*Subscription]*member)}
		h.entries[key] = e
	}
	return e
}

// markDirty marks an entry dirty with urgency d, unless it already has that or a higher one. The caller holds mu.
func (h *Hub) markDirty(e *entry, d urgency) {
	if e.dirty < d {
		e.dirty = d
		h.dirty[d] = append(h.dirty[d], e)
		h.wake.Ring()
	}
}

// Run reads what is dirty until ctx is done, and returns nil. Call it exactly once.
func (h *Hub) Run(ctx context.Context) error {
	round := time.NewTimer(h.pace.nextRound())
	defer round.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-round.C:
			h.startRound()
			round.Reset(h.pace.nextRound())
		}
		if h.read(ctx) {
			h.wake.Ring() // there may be more to read
		}
		if h.pace.evaluate() {
			h.cfg.Announcer.Flood(h.pace.flooded())
			round.Reset(h.pace.nextRound())
		}
	}
}

// announceGrace is how much later than the read that found a change its notification may arrive. Longer means that a lost trigger is
// noticed later; shorter, that a slow notification counts as missed.
const announceGrace = 2 * time.Second

// startRound marks all that is watched dirty, unless part of the last round still waits. It also counts the changes whose notification has
// not arrived within announceGrace: the sign of a lost or disabled trigger, or of a LISTEN that does not work.
func (h *Hub) startRound() {
	h.mu.Lock()
	if len(h.dirty[routine]) > 0 {
		h.mu.Unlock()
		return
	}
	h.pace.lastRoundCost, h.pace.roundCost = h.pace.roundCost, 0
	for _, e := range h.entries {
		if !e.unannounced.IsZero() && time.Since(e.unannounced) >= announceGrace {
			e.unannounced = time.Time{}
			h.missedChanges++
			h.metrics.missed.Inc()
		}
		h.markDirty(e, routine)
	}
	h.byOwner.findAll()
	h.mu.Unlock()
	if h.missedChanges > 0 && time.Since(h.missedLogged) >= time.Minute {
		h.cfg.Logger.Warn("changes were found that no notification announced; is a trigger missing or disabled, or LISTEN blocked by a pooler? "+
			"Run auditstream doctor: it says which, and what to do",
			"changes", h.missedChanges)
		h.missedChanges, h.missedLogged = 0, time.Now()
	}
}

var errFeedGone = errors.New("the feed was uninstalled or replaced: reconnect")

// Retire ends all subscriptions and refuses new ones, because the feed was uninstalled or replaced. It does not block.
func (h *Hub) Retire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.feedGone = true
	for _, e := range h.entries {
		for s := range e.members {
			s.endFeed()
		}
	}
	for _, subs := range h.byOwner.subs {
		for s := range subs {
			s.endFeed()
		}
	}
}

// Idle reports whether nobody watches anything. While it is true we leave the database alone, because it may be one that sleeps without
// queries.
func (h *Hub) Idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries) == 0 && len(h.byOwner.subs) == 0
}
