package service

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/sql"
	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

// feeds holds all feeds of the database, and follows those that are installed or removed while serve runs. They share the connections, the
// listener and the locks. Each has a hub of its own, so that a feed with slow reads does not delay the others. As the listener's sink it
// passes each notification to the hub of its feed.
type feeds struct {
	cfg       Config
	registrar *pgnotify.Registrar
	drift     *driftWatch
	wake      pgnotify.Bell // rung when toRun has grown
	firstLoad chan struct{} // closed when the feeds have been read from the database once

	mu     sync.RWMutex
	feeds  map[string]*feed
	toRun  []*feed
	loaded bool // firstLoad is closed
	// reloaded is when the last reload began, and answered whether it succeeded.
	reloaded time.Time
	answered bool
	// removed is when each of those was removed that are not there now.
	removed map[string]time.Time

	reloading sync.Mutex // one reload at a time: the answer to an older one would replace that to a newer
	asking    sync.Mutex // held by the request that reloads for all that wait
}

// awayFor is how long a feed that was removed may be on its way back, as between uninstall and install in a migration. Until then its viewers
// are told to come back, and later that there is no such feed.
const awayFor = 10 * time.Minute

// feed is one feed with its hub and metrics.
type feed struct {
	*store.Feed
	rows      *store.Store
	hub       *pgnotify.Hub
	announcer *pgnotify.FeedAnnouncer
	metrics   *prometheus.Registry
	removed   chan struct{} // closed by remove
}

func newFeeds(cfg Config, registrar *pgnotify.Registrar, drift *driftWatch) *feeds {
	return &feeds{cfg: cfg, registrar: registrar, drift: drift, wake: pgnotify.NewBell(),
		firstLoad: make(chan struct{}), feeds: make(map[string]*feed), removed: make(map[string]time.Time)}
}

var (
	errFeedsUnknown = errors.New("the database was not asked yet which feeds there are")
	errAway         = errors.New("the feed was uninstalled a moment ago, and may be installed again")
)

// Notify implements [pgnotify.Sink].
func (a *feeds) Notify(row string) bool {
	name, text := pgnotify.SplitRow(row)
	a.mu.RLock()
	defer a.mu.RUnlock()
	f := a.feeds[name]
	if f == nil {
		return false
	}
	key, ok := f.Key.Parse(text)
	if ok {
		f.hub.Notify(key)
	}
	return ok
}

// Resync implements [pgnotify.Sink].
func (a *feeds) Resync() {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, f := range a.feeds {
		f.hub.Resync()
	}
}

// Idle reports whether nobody watches anything.
func (a *feeds) Idle() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, f := range a.feeds {
		if !f.hub.Idle() {
			return false
		}
	}
	return true
}

// unreadable returns how many watched rows cannot be read.
func (a *feeds) unreadable() (n int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, f := range a.feeds {
		n += f.rows.Unreadable()
	}
	return n
}

// ping reads no rows, but checks what streams need: a view, and the right to read it. It prefers the view of the feed audits.
func (a *feeds) ping(ctx context.Context) error {
	a.mu.RLock()
	loaded := a.loaded
	a.mu.RUnlock()
	if !loaded {
		a.reload(ctx)
	}
	a.mu.RLock()
	f := a.feeds[store.DefaultFeed]
	for _, name := range slices.Sorted(maps.Keys(a.feeds)) {
		f = cmp.Or(f, a.feeds[name])
	}
	a.mu.RUnlock()
	_, err := f.rows.Rows(ctx, nil)
	return err
}

// reload reads from the database which feeds there are, adds and removes those that differ, and reports whether the read succeeded.
func (a *feeds) reload(ctx context.Context) bool {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	found, err := sql.Feeds(ctx, a.cfg.Pool)
	a.mu.Lock()
	a.reloaded, a.answered = began, err == nil
	a.mu.Unlock()
	if err != nil {
		a.cfg.Logger.Debug("which feeds there are is not known", "error", err)
		return false
	}
	there := make(map[string]*store.Feed)
	for _, f := range found {
		there[f.Name] = StoreFeed(f)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, f := range a.feeds {
		if !reflect.DeepEqual(f.Feed, there[name]) {
			a.remove(f)
		}
	}
	if !a.loaded {
		a.loaded = true
		close(a.firstLoad)
		clear(a.removed) // what was not known to be there
	}
	for name, f := range there {
		if a.feeds[name] == nil {
			delete(a.removed, name)
			if err := a.add(f); err != nil {
				a.cfg.Logger.Error("a feed cannot be served", "feed", name, "error", err)
			}
		}
	}
	return true
}

// StoreFeed converts a feed of package sql to one of package store.
func StoreFeed(f sql.Feed) *store.Feed {
	return &store.Feed{Name: f.Name, View: f.View, Key: store.KeyType(f.Key), Mix: f.Mix, Ends: f.Ends, Deleted: f.Deleted, Public: f.Public, Groups: f.Groups, Fields: f.Fields}
}

// add makes a feed's hub and hands it to run. The caller holds mu, once other goroutines run.
func (a *feeds) add(described *store.Feed) error {
	f := &feed{Feed: described, rows: store.New(a.cfg.Pool, described), announcer: a.registrar.Feed(described), metrics: prometheus.NewRegistry(), removed: make(chan struct{})}
	f.rows.LimitRows(a.cfg.MaxRowBytes)
	if a.cfg.Prepared {
		f.rows.PrepareWhile(a.registrar.Held)
	}
	metrics := prometheus.WrapRegistererWith(prometheus.Labels{"feed": described.Name}, f.metrics)
	metrics.MustRegister(rowMetrics(f.rows)...)
	rows := staleGuard{Loader: traced(f.rows, a.cfg.Tracer), Finder: f.rows, drift: a.drift, feed: described.Name}
	logger := a.cfg.Logger
	if described.Name != store.DefaultFeed {
		logger = logger.With("feed", described.Name)
	}
	var err error
	f.hub, err = pgnotify.NewHub(pgnotify.HubConfig{
		Feed:       described,
		Loader:     rows,
		Announcer:  f.announcer,
		Finder:     rows,
		Interval:   a.cfg.PollInterval,
		NoFlood:    a.cfg.NoFlood,
		Logger:     logger,
		Registerer: metrics,
	})
	if err != nil {
		return err
	}
	if err := a.cfg.Registerer.Register(f.metrics); err != nil {
		return err
	}
	a.feeds[described.Name] = f
	a.toRun = append(a.toRun, f)
	a.wake.Ring()
	return nil
}

// remove ends a feed. Its streams are told to come back, and then find its successor or none. The caller holds mu.
func (a *feeds) remove(f *feed) {
	a.removed[f.Name] = time.Now()
	delete(a.feeds, f.Name)
	a.cfg.Registerer.Unregister(f.metrics)
	f.announcer.Detach()
	f.hub.Retire()
	close(f.removed)
}

// run runs the hub of each added feed, until ctx is done, and returns nil.
func (a *feeds) run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
		a.mu.Lock()
		for _, f := range a.toRun {
			ctx, cancel := context.WithCancel(ctx)
			running.Go(func() { _ = f.hub.Run(ctx) }) // always nil
			running.Go(func() { _ = f.hub.Find(ctx) })
			running.Go(func() {
				defer cancel()
				select {
				case <-ctx.Done():
				case <-f.removed:
				}
			})
		}
		a.toRun = nil
		a.mu.Unlock()
	}
}
