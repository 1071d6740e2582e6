package service

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"

	"auditstream/internal/pgnotify"
	"auditstream/internal/server"
	"auditstream/internal/sql"
	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

// feeds are all that is adopted in the database, those included that are installed or removed while serve runs. They share the connections,
// the listener and the locks; each has a hub of its own, so that rows of one that are slow to read are nobody else's problem. What the listener hears they take apart.
type feeds struct {
	cfg       Config
	registrar *pgnotify.Registrar
	drift     *driftWatch
	wake      pgnotify.Bell // there is something to run
	known     chan struct{} // closed when it is known which there are

	mu    sync.RWMutex
	feeds map[string]*feed
	toRun []*feed
	asked bool // it is known which there are
}

// feed is one of them.
type feed struct {
	*store.Feed
	rows      *store.Store
	hub       *pgnotify.Hub
	announcer *pgnotify.FeedAnnouncer
	metrics   *prometheus.Registry
	gone      chan struct{} // closed when it is over
}

func newFeeds(cfg Config, registrar *pgnotify.Registrar, drift *driftWatch) *feeds {
	return &feeds{cfg: cfg, registrar: registrar, drift: drift, wake: pgnotify.NewBell(),
		known: make(chan struct{}), feeds: make(map[string]*feed)}
}

var errNotAsked = errors.New("the database was not asked yet which feeds there are")

// find is [server.Config.Feeds].
func (a *feeds) find(name string) (server.Feed, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch f := a.feeds[name]; {
	case f != nil:
		return server.Feed{Feed: f.Feed, Hub: hub{f.hub}}, nil
	case !a.asked:
		return server.Feed{}, errNotAsked
	default:
		return server.Feed{}, server.ErrNoFeed
	}
}

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

// unreadable is how many rows that somebody asks for cannot be read.
func (a *feeds) unreadable() (n int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, f := range a.feeds {
		n += f.rows.Unreadable()
	}
	return n
}

// ping reads what streams need: a view, and the right to read it. It takes audits', where there is one.
func (a *feeds) ping(ctx context.Context) error {
	a.mu.RLock()
	asked := a.asked
	a.mu.RUnlock()
	if !asked {
		a.look(ctx)
	}
	a.mu.RLock()
	f := a.feeds[store.DefaultFeed]
	for _, name := range slices.Sorted(maps.Keys(a.feeds)) {
		f = cmp.Or(f, a.feeds[name])
	}
	a.mu.RUnlock()
	_, err := f.rows.Audits(ctx, nil)
	return err
}

// look finds which feeds there are, and reports whether it could.
func (a *feeds) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	found, err := sql.Feeds(ctx, a.cfg.Pool)
	if err != nil {
		a.cfg.Logger.Debug("which feeds there are is not known", "error", err)
		return false
	}
	there := make(map[string]*store.Feed)
	for _, f := range found {
		there[f.Name] = Described(f)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asked {
		a.asked = true
		close(a.known)
	}
	for name, f := range a.feeds {
		if !reflect.DeepEqual(f.Feed, there[name]) {
			a.remove(f)
		}
	}
	for name, f := range there {
		if a.feeds[name] == nil {
			if err := a.add(f); err != nil {
				a.cfg.Logger.Error("a feed cannot be served", "feed", name, "error", err)
			}
		}
	}
	return true
}

// Described is a feed of the database as the store has it.
func Described(f sql.Feed) *store.Feed {
	return &store.Feed{Name: f.Name, View: f.View, Key: store.KeyType(f.Key), Mix: f.Mix, Ends: f.Ends, Deleted: f.Deleted, Public: f.Public, Groups: f.Groups, Fields: f.Fields}
}

// add begins a feed. The caller holds mu, where others run.
func (a *feeds) add(described *store.Feed) error {
	f := &feed{Feed: described, rows: store.New(a.cfg.Pool, described), announcer: a.registrar.Feed(described), metrics: prometheus.NewRegistry(), gone: make(chan struct{})}
	f.rows.LimitRows(a.cfg.MaxRowBytes)
	if a.cfg.Prepared {
		f.rows.PrepareWhile(a.registrar.Held)
	}
	metrics := prometheus.WrapRegistererWith(prometheus.Labels{"feed": described.Name}, f.metrics)
	metrics.MustRegister(rowMetrics(f.rows)...)
	rows := guarded{Loader: traced(f.rows, a.cfg.Tracer), Finder: f.rows, drift: a.drift, feed: described.Name}
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

// remove ends a feed: whoever watches is told to come back, and finds another one, or none. The caller holds mu.
func (a *feeds) remove(f *feed) {
	delete(a.feeds, f.Name)
	a.cfg.Registerer.Unregister(f.metrics)
	f.announcer.Detach()
	f.hub.Retire()
	close(f.gone)
}

// run runs all that are added, until ctx is done, and returns nil.
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
				case <-f.gone:
				}
			})
		}
		a.toRun = nil
		a.mu.Unlock()
	}
}
