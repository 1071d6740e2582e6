// Package next is the hub as house.md draws it, on its way to replace the one above.
package next

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"auditstream/store"
)

// Loader reads the committed state of audits. An id without a row is absent from the answer.
type Loader interface {
	Audits(ctx context.Context, ids []store.Key) ([]*store.State, error)
}

// Finder finds the ids of the audits that may belong to one of the owners and have not ended. It must miss none; what it
// finds is read before it is believed.
type Finder interface {
	Owned(ctx context.Context, owners []store.Owner) ([]store.Key, error)
}

// Registrar tells writers what is watched; a pgnotify.Registrar is one. Its methods do not block.
type Registrar interface {
	// Settled returns a number while each change of an audit is announced, another each time that this becomes so, and 0 otherwise.
	Settled(id store.Key) uint64
	// Want says that an audit is watched, whose state was read when Settled returned settled, and returns whether all changes
	// since are announced. Otherwise the hub reads it again, now and when the registrar says so.
	Want(id store.Key, settled uint64) bool
	Leave(id store.Key)
	// Flood says whether changes are so many that writers wait for each other.
	Flood(bool)
}

// Config configures a Hub. Zero means the default.
type Config struct {
	// Loader is required.
	Loader Loader
	// Registrar's default announces everything.
	Registrar Registrar
	// Finder is required by SubscribeOwned alone.
	Finder Finder
	// Interval of the safety net; default 10 s. Each is up to 10 % shorter at random, so that instances do not read in step.
	Interval time.Duration
	// ReadTimeout bounds one read; default 5 s.
	ReadTimeout time.Duration
	// Logger's default discards.
	Logger *slog.Logger
}

// Hub knows who watches what, and hands out states. All methods are safe for concurrent use.
type Hub struct {
	cfg  Config
	wake chan struct{} // capacity 1: there is something to read
	pace pace          // Run's

	mu      sync.Mutex
	entries map[store.Key]*entry
	urgent  []*entry             // dirty because of a notification or a new subscriber
	routine []*entry             // the rest of a round of the safety net
	reads   uint64               // how many have begun
	reading map[store.Key]*entry // by the read that goes on; nil: none does
	owned   owned
	missed  missed
	failure error // why the last read failed; nil after one that succeeded
}

// entry is everything that the hub knows about one audit.
type entry struct {
	id      store.Key
	members []*member
	state   *store.State // what each open member was last given; nil: nothing yet
	wanted  int          // members that are known to be their viewers'
	since   uint64       // Hub.reads when it was made: an earlier read is not for it
	dirty   dirt
	noticed time.Time // arrival of the first notification since the last read; zero: none
	known   bool      // a change without a notification proves nothing
	silent  time.Time // when a change was found that nothing announced; zero: none
}

// dirt is how soon an entry is to be read.
type dirt uint8

const (
	clean dirt = iota
	routine
	urgent
)

// New returns a Hub that does nothing until Run.
func New(cfg Config) (*Hub, error) {
	if cfg.Loader == nil {
		return nil, errors.New("pgnotify: Config.Loader is required")
	}
	if cfg.Interval < 0 || cfg.ReadTimeout < 0 {
		return nil, errors.New("pgnotify: Config.Interval and ReadTimeout must not be negative")
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
	if cfg.Registrar == nil {
		cfg.Registrar = everything{}
	}
	return &Hub{cfg: cfg, wake: make(chan struct{}, 1), entries: make(map[store.Key]*entry), owned: newOwned(), pace: newPace(cfg.Interval)}, nil
}

// Notify marks an audit dirty because a notification said that it changed. It does not block. Ids that nobody watches cost a map
// look-up, unless somebody watches all of an owner's: then it may be one that has begun.
func (h *Hub) Notify(id store.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.entries[id]
	if e == nil {
		if !h.owned.mayBegin() {
			return
		}
		e = h.add(id)
	}
	if e.noticed.IsZero() {
		e.noticed = time.Now()
	}
	e.silent = time.Time{}
	h.soil(e, urgent)
}

// Resync has all that is watched read: notifications may have been lost. It does not block.
func (h *Hub) Resync() { h.Mark(func(store.Key) bool { return true }) }

// Mark has read what is watched and chosen, because its changes may not have been announced. It does not block.
func (h *Hub) Mark(chosen func(id store.Key) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, e := range h.entries {
		if chosen(id) {
			e.known, e.silent = true, time.Time{}
			h.soil(e, urgent)
		}
	}
	h.owned.refresh()
}

// add makes an entry. The caller holds mu.
func (h *Hub) add(id store.Key) *entry {
	e := &entry{id: id, since: h.reads}
	h.entries[id] = e
	return e
}

// soil marks an entry dirty, and never as less urgent than it is. The caller holds mu.
func (h *Hub) soil(e *entry, d dirt) {
	if e.dirty >= d {
		return
	}
	e.dirty = d
	if d == urgent {
		h.urgent = append(h.urgent, e)
	} else {
		h.routine = append(h.routine, e)
	}
	h.ring()
}

func (h *Hub) ring() {
	select {
	case h.wake <- struct{}{}:
	default: // already ringing
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
		for h.read(ctx) {
			if changed := h.pace.look(); changed {
				h.cfg.Registrar.Flood(h.pace.flooded())
				round.Reset(h.pace.next())
			}
		}
	}
}

// round has everything read that is watched.
func (h *Hub) round() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.entries {
		h.missed.settle(e)
		h.soil(e, routine)
	}
	h.missed.log(h.cfg.Logger)
	h.owned.refresh()
}

func (h *Hub) notOpened(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Errorf("first read: %w", errors.Join(context.Cause(ctx), h.failure, h.owned.failure))
}

// everything is the Registrar of a hub whose triggers ring for everything.
type everything struct{}

func (everything) Settled(store.Key) uint64    { return 1 }
func (everything) Want(store.Key, uint64) bool { return true }
func (everything) Leave(store.Key)             {}
func (everything) Flood(bool)                  {}
