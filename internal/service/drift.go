package service

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/sql"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// driftWatch tells what has changed in the database since the install, with serve's rights. Its other methods are safe beside look.
type driftWatch struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
	count  *prometheus.GaugeVec
	// Those are look's alone.
	told     map[string]time.Time // when each finding was logged
	print    string               // the catalog's fingerprint before the last comparison
	compared time.Time

	mu    sync.Mutex
	kinds []string        // what was found last, each once
	stale map[string]bool // the feeds of which nothing may be shown
}

const (
	// tellAgain is after how long a finding that is still there is logged once more.
	tellAgain = 6 * time.Hour
	// compareEvery is how often all is compared although the catalog's fingerprint is the same: that does not tell of roles.
	compareEvery = time.Hour
)

func newDriftWatch(pool *pgxpool.Pool, logger *slog.Logger, registry prometheus.Registerer) *driftWatch {
	w := &driftWatch{pool: pool, logger: logger, told: make(map[string]time.Time), count: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "auditstream_drift",
		Help: "What is not as install made it or as was chosen then, by kind; the log says what, and the command that repairs it.",
	}, []string{"kind"})}
	for _, kind := range sql.FindingKinds {
		w.count.WithLabelValues(kind).Set(0)
	}
	registry.MustRegister(w.count)
	return w
}

// look compares once, unless nothing has happened in the catalog since and all is false: a database that nobody watches may sleep, and is asked
// one statement. It reports whether rows may be shown that might not be before, or the other way round. What cannot be compared now is as it was.
func (w *driftWatch) look(ctx context.Context, all bool) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	d, role, err := w.compare(ctx, all)
	if err != nil {
		w.logger.Debug("what has changed since the install is not known", "error", err)
	}
	if err != nil || d == nil {
		return false
	}
	w.tell(*d, role)
	counts, stale := make(map[string]int), make(map[string]bool)
	for _, f := range d.Findings {
		counts[f.Kind]++
		if f.Stale {
			stale[f.Feed] = true
		}
	}
	var kinds []string
	for _, kind := range sql.FindingKinds {
		w.count.WithLabelValues(kind).Set(float64(counts[kind]))
		if counts[kind] > 0 {
			kinds = append(kinds, kind)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	changed = !maps.Equal(stale, w.stale)
	w.kinds, w.stale = kinds, stale
	return changed
}

// compare returns nil where the catalog is as it was, and otherwise what has changed, for role.
func (w *driftWatch) compare(ctx context.Context, all bool) (d *sql.Drift, role string, err error) {
	conn, err := w.pool.Acquire(context.WithValue(ctx, Unproven{}, true))
	if err != nil {
		return nil, "", err
	}
	defer conn.Release()
	print, err := sql.Fingerprint(ctx, conn)
	if err != nil || print == w.print && !all && time.Since(w.compared) < compareEvery {
		return nil, "", err
	}
	found, err := sql.Compare(ctx, conn.Conn())
	if err != nil {
		return nil, "", err
	}
	w.print, w.compared = print, time.Now()
	return &found, conn.Conn().Config().User, nil
}

// tell logs each finding once, and that there is none any more.
func (w *driftWatch) tell(d sql.Drift, role string) {
	found := make(map[string]bool)
	for _, f := range d.Findings {
		found[f.Text] = true
		if at, told := w.told[f.Text]; told && time.Since(at) < tellAgain {
			continue
		}
		w.told[f.Text] = time.Now()
		if f.Stale {
			w.logger.Error("no rows are shown: whose they are is read from what is not there any more", "found", f.Text, "run", DriftCommand(d, f, role))
		} else {
			w.logger.Warn("the database is not as it was when auditstream was installed", "found", f.Text, "run", DriftCommand(d, f, role))
		}
	}
	before := len(w.told)
	for text := range w.told {
		if !found[text] {
			delete(w.told, text)
		}
	}
	if before > 0 && len(w.told) == 0 {
		w.logger.Info("the database is as it was when auditstream was installed")
	}
}

// Kinds are those of what was found last, for anybody to see.
func (w *driftWatch) Kinds() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.kinds)
}

func (w *driftWatch) isStale(feed string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stale[feed]
}

// guarded reads rows, and shows none while whose they are is read from what is not there any more.
type guarded struct {
	pgnotify.Loader
	pgnotify.Finder
	drift *driftWatch
	feed  string
}

var errStale = errors.New("the table, or its owner's column, was replaced by another of its name: run auditstream install")

// Audits implements [pgnotify.Loader].
func (g guarded) Audits(ctx context.Context, keys []store.Key) ([]*store.State, error) {
	states, err := g.Loader.Audits(ctx, keys)
	if err != nil || !g.drift.isStale(g.feed) { // also when that was found meanwhile
		return states, err
	}
	states = nil
	for _, key := range keys {
		states = append(states, &store.State{ID: key, Err: errStale})
	}
	return states, nil
}

// Owned implements [pgnotify.Finder].
func (g guarded) Owned(ctx context.Context, owners []store.Owner) ([]store.Key, []store.Owner, error) {
	if g.drift.isStale(g.feed) {
		return nil, nil, errStale
	}
	return g.Finder.Owned(ctx, owners)
}
