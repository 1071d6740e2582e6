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

// driftWatch finds what has changed in the database since the install, with serve's rights, and logs it. check has one caller at a time;
// the other methods are safe to call meanwhile.
type driftWatch struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
	count  *prometheus.GaugeVec
	// These fields belong to the goroutine that calls check.
	loggedAt map[string]time.Time // when each finding was logged
	print    string               // the catalog's fingerprint before the last comparison
	compared time.Time

	mu    sync.Mutex
	kinds []string        // the kinds of the last findings, each once
	stale map[string]bool // the feeds whose rows must not be shown
}

const (
	// logAgainAfter is the time after which a finding that persists is logged again.
	logAgainAfter = 6 * time.Hour
	// compareEvery is the time after which everything is compared even if the catalog's fingerprint is the same: roles are not in it.
	compareEvery = time.Hour
)

func newDriftWatch(pool *pgxpool.Pool, logger *slog.Logger, registry prometheus.Registerer) *driftWatch {
	w := &driftWatch{pool: pool, logger: logger, loggedAt: make(map[string]time.Time), count: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "auditstream_drift",
		Help: "What is not as install made it or as was chosen then, by kind; the log says what, and the command that repairs it.",
	}, []string{"kind"})}
	for _, kind := range sql.FindingKinds {
		w.count.WithLabelValues(kind).Set(0)
	}
	registry.MustRegister(w.count)
	return w
}

// check compares the database with the install. Unless all is true it skips the comparison while the catalog's fingerprint is the same, so
// that an idle database gets one statement only. It reports whether a feed's rows may be shown now and might not before, or the reverse.
// If the comparison fails, the last findings stay.
func (w *driftWatch) check(ctx context.Context, all bool) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	d, role, err := w.compare(ctx, all)
	if err != nil {
		w.logger.Debug("what has changed since the install is not known", "error", err)
	}
	if err != nil || d == nil {
		return false
	}
	w.logFindings(*d, role)
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

// compare returns nil if the catalog's fingerprint is unchanged, and otherwise the differences; role is the one that reads.
func (w *driftWatch) compare(ctx context.Context, all bool) (d *sql.Drift, role string, err error) {
	conn, err := w.pool.Acquire(context.WithValue(ctx, SkipPing{}, true))
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

// logFindings logs each finding once, and when all are gone.
func (w *driftWatch) logFindings(d sql.Drift, role string) {
	found := make(map[string]bool)
	for _, f := range d.Findings {
		found[f.Text] = true
		if at, told := w.loggedAt[f.Text]; told && time.Since(at) < logAgainAfter {
			continue
		}
		w.loggedAt[f.Text] = time.Now()
		if f.Stale {
			w.logger.Error("no rows are shown: whose they are is read from what is not there any more", "found", f.Text, "run", DriftCommand(d, f, role))
		} else {
			w.logger.Warn("the database is not as it was when auditstream was installed", "found", f.Text, "run", DriftCommand(d, f, role))
		}
	}
	before := len(w.loggedAt)
	for text := range w.loggedAt {
		if !found[text] {
			delete(w.loggedAt, text)
		}
	}
	if before > 0 && len(w.loggedAt) == 0 {
		w.logger.Info("the database is as it was when auditstream was installed")
	}
}

// Kinds returns the kinds of the last findings. They name nothing of the database, so anybody may see them.
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

// staleGuard reads rows, but returns an error for each while the feed is stale: its view then still reads the owner from a table or column
// that was replaced, so a row could be shown to the wrong user.
type staleGuard struct {
	pgnotify.Loader
	pgnotify.Finder
	drift *driftWatch
	feed  string
}

var errStale = errors.New("the table, or its owner's column, was replaced by another of its name: run auditstream install")

// Rows implements [pgnotify.Loader].
func (g staleGuard) Rows(ctx context.Context, keys []store.Key) ([]*store.State, error) {
	states, err := g.Loader.Rows(ctx, keys)
	if err != nil || !g.drift.isStale(g.feed) { // asked after the read, so that a finding during the read counts
		return states, err
	}
	states = nil
	for _, key := range keys {
		states = append(states, &store.State{ID: key, Err: errStale})
	}
	return states, nil
}

// Owned implements [pgnotify.Finder].
func (g staleGuard) Owned(ctx context.Context, owners []store.Owner) ([]store.Key, []store.Owner, error) {
	if g.drift.isStale(g.feed) {
		return nil, nil, errStale
	}
	return g.Finder.Owned(ctx, owners)
}
