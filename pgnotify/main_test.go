package pgnotify

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/integration/pgtest"
	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type loaderFunc func(ctx context.Context, ids []int64) ([]*store.State, error)

func (f loaderFunc) Audits(ctx context.Context, ids []int64) ([]*store.State, error) {
	return f(ctx, ids)
}

// table is the database as a hub sees it.
type table struct {
	mu    sync.Mutex
	rows  map[int64]store.Audit
	fail  error         // what reads fail with
	takes time.Duration // how long a read lasts after its snapshot
	reads [][]int64     // the ids of each read, sorted
	times []time.Time   // when each began

	finds    int   // looks at what owners have
	findFail error // what they alone fail with
}

func newTable(rows ...store.Audit) *table {
	tb := &table{rows: make(map[int64]store.Audit)}
	for _, row := range rows {
		tb.set(row)
	}
	return tb
}

func (tb *table) set(a store.Audit) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.rows[a.ID] = a
}

func (tb *table) row(id int64) store.Audit {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.rows[id]
}

func (tb *table) drop(id int64) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	delete(tb.rows, id)
}

func (tb *table) failWith(err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.fail = err
}

func (tb *table) count() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return len(tb.reads)
}

// Audits takes its snapshot at once and returns after the time that reads take.
func (tb *table) Audits(ctx context.Context, ids []int64) ([]*store.State, error) {
	tb.mu.Lock()
	sorted := slices.Sorted(slices.Values(ids))
	tb.reads, tb.times = append(tb.reads, sorted), append(tb.times, time.Now())
	var states []*store.State
	for _, id := range ids {
		if row, ok := tb.rows[id]; ok {
			states = append(states, store.NewState(row))
		}
	}
	err, takes := tb.fail, tb.takes
	tb.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return states, nil
}

func (tb *table) setTakes(d time.Duration) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.takes = d
}

func running(id int64, progress int) store.Audit {
	return store.Audit{ID: id, Status: "running", Progress: progress}
}

func completed(id int64) store.Audit {
	return store.Audit{ID: id, Status: "completed", Progress: 100}
}

// startHub runs a hub until the test, or its bubble, is over.
func startHub(t testing.TB, cfg HubConfig) *Hub {
	t.Helper()
	h, err := NewHub(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	return h
}

// subscribe watches an audit until the test is over.
func subscribe(t testing.TB, h *Hub, id int64) <-chan *store.State {
	t.Helper()
	states, cancel, err := h.Subscribe(t.Context(), id, nil)
	if err != nil {
		t.Errorf("Subscribe(%d): %v", id, err) // not Fatalf: some subscribe in goroutines of their own
		return nil
	}
	t.Cleanup(cancel)
	return states
}

// next returns what is in the slot once everything has come to rest.
func next(t testing.TB, states <-chan *store.State) *store.State {
	t.Helper()
	synctest.Wait()
	select {
	case s := <-states:
		return s
	default:
		t.Fatal("no state in the slot")
		return nil
	}
}

func wantProgress(t testing.TB, states <-chan *store.State, want int) {
	t.Helper()
	if got := next(t, states).Audit.Progress; got != want {
		t.Errorf("progress %d, want %d", got, want)
	}
}

func wantNothing(t testing.TB, states <-chan *store.State) {
	t.Helper()
	synctest.Wait()
	select {
	case s := <-states:
		t.Errorf("state %s, want none", s.JSON)
	default:
	}
}

// metric returns a counter's or gauge's value; with a label's value where there are several.
func metric(t interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}, reg *prometheus.Registry, name string, label ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) > 0 && m.GetLabel()[0].GetValue() != label[0] {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no metric %s %q", name, label)
	return 0
}

// logs collects what is logged, as text.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// count says how many lines contain text.
func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
