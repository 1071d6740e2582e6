package pgnotify

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"pgregory.net/rapid"
)

// table is the database as a hub sees it.
type table struct {
	mu       sync.Mutex
	rows     map[store.Key]store.Row
	takes    time.Duration // a read, after its look
	perKey   time.Duration // more, for each key
	fail     error
	failFind error
	more     []store.Owner
	reads    [][]store.Key
	finds    int
}

func newTable(rows ...store.Row) *table {
	tb := &table{rows: make(map[store.Key]store.Row)}
	for _, row := range rows {
		tb.set(row)
	}
	return tb
}

// locked calls f while nobody reads.
func (tb *table) locked(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	f()
}

func (tb *table) set(a store.Row)           { tb.locked(func() { tb.rows[a.ID] = a }) }
func (tb *table) drop(id int64)             { tb.locked(func() { delete(tb.rows, store.IntKey(id)) }) }
func (tb *table) failWith(err error)        { tb.locked(func() { tb.fail = err }) }
func (tb *table) failFindsWith(err error)   { tb.locked(func() { tb.failFind = err }) }
func (tb *table) setTakes(d time.Duration)  { tb.locked(func() { tb.takes = d }) }
func (tb *table) setPerKey(d time.Duration) { tb.locked(func() { tb.perKey = d }) }
func (tb *table) count() (n int)            { tb.locked(func() { n = len(tb.reads) }); return n }
func (tb *table) findCount() (n int)        { tb.locked(func() { n = tb.finds }); return n }

// longestRead returns the largest number of keys of one read.
func (tb *table) longestRead() (longest int) {
	tb.locked(func() {
		for _, read := range tb.reads {
			longest = max(longest, len(read))
		}
	})
	return longest
}

func (tb *table) Rows(ctx context.Context, ids []store.Key) ([]*store.State, error) {
	tb.mu.Lock()
	tb.reads = append(tb.reads, ids)
	var states []*store.State
	for _, id := range ids {
		if row, ok := tb.rows[id]; ok {
			states = append(states, store.NewState(row))
		}
	}
	takes, err := tb.takes+time.Duration(len(ids))*tb.perKey, tb.fail
	tb.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return states, err
}

func (tb *table) Owned(_ context.Context, owners []store.Owner) (ids []store.Key, more []store.Owner, err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.finds++
	for id, row := range tb.rows {
		for _, owner := range owners {
			if row.Owner() == owner && !row.Terminal() {
				ids = append(ids, id)
			}
		}
	}
	return ids, tb.more, errors.Join(tb.fail, tb.failFind)
}

// entries counts a hub's while it runs.
func entries(h *Hub) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries)
}

func row(id int64, user string, progress int) store.Row {
	return store.Row{ID: store.IntKey(id), Status: "running", Progress: progress, UserID: &user}
}

func ended(id int64, user string) store.Row {
	a := row(id, user, 100)
	a.Status = "completed"
	return a
}

var errDatabase = errors.New("the database is away")

// alwaysAnnouncer is the Announcer for triggers that notify of every change.
type alwaysAnnouncer struct{}

func (alwaysAnnouncer) Attach(func(func(store.Key) bool)) {}
func (alwaysAnnouncer) Want(store.Key)                    {}
func (alwaysAnnouncer) Leave(store.Key)                   {}
func (alwaysAnnouncer) Announced(store.Key) bool          { return true }
func (alwaysAnnouncer) Flood(bool)                        {}

// newHub makes a hub, with alwaysAnnouncer if there is no other Announcer.
func newHub(t rapid.TB, cfg HubConfig) *Hub {
	t.Helper()
	cfg.Announcer = cmp.Or(cfg.Announcer, Announcer(alwaysAnnouncer{}))
	h, err := NewHub(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func startHub(t *testing.T, cfg HubConfig) *Hub {
	t.Helper()
	h := newHub(t, cfg)
	go func() { _ = h.Run(t.Context()) }()
	if cfg.Finder != nil {
		go func() { _ = h.Find(t.Context()) }()
	}
	return h
}

// startWanted is startHub, with an Announcer.
func startWanted(t *testing.T, cfg HubConfig) (*Hub, *countingAnnouncer) {
	t.Helper()
	w := newCountingAnnouncer()
	cfg.Announcer = w
	return startHub(t, cfg), w
}

func keys(ids []int64) (keys []store.Key) {
	for _, id := range ids {
		keys = append(keys, store.IntKey(id))
	}
	return keys
}

func subscribe(t *testing.T, h *Hub, ids ...int64) *Subscription {
	t.Helper()
	s, err := h.Subscribe(t.Context(), keys(ids), nil)
	testkit.NoError(t, err)
	return s
}

func wantProgress(t *testing.T, s *Subscription, want map[int64]int) {
	t.Helper()
	synctest.Wait()
	got := s.Take()
	if len(got) != len(want) {
		t.Errorf("%d states, want %v", len(got), want)
	}
	for _, state := range got {
		if p, ok := want[state.ID.Int()]; !ok || p != state.Row.Progress {
			t.Errorf("audit %s: progress %d, want %v", state.ID, state.Row.Progress, want)
		}
	}
}

func TestSubscribersSeeChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10), row(2, "a", 20))
		h := startHub(t, HubConfig{Loader: tb})
		s, both := subscribe(t, h, 1), subscribe(t, h, 1, 2)
		wantProgress(t, s, map[int64]int{1: 10})
		wantProgress(t, both, map[int64]int{1: 10, 2: 20})
		s.Confirm()
		both.Confirm()
		tb.set(row(1, "a", 11))
		h.Notify("1")
		wantProgress(t, s, map[int64]int{1: 11})
		wantProgress(t, both, map[int64]int{1: 11})
		s.Cancel()
		both.Cancel()
		if n := entries(h); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// countingAnnouncer is an Announcer that counts its calls and announces nothing.
type countingAnnouncer struct {
	mu     sync.Mutex
	wanted map[store.Key]int
	mark   func(chosen func(store.Key) bool)
}

func newCountingAnnouncer() *countingAnnouncer {
	return &countingAnnouncer{wanted: map[store.Key]int{}}
}

func (w *countingAnnouncer) Attach(mark func(chosen func(store.Key) bool)) { w.mark = mark }

func (w *countingAnnouncer) Announced(store.Key) bool { return false }

// Want makes the hub read the key a moment later, like a registrar that has acquired the lock.
func (w *countingAnnouncer) Want(key store.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted[key]++
	go w.mark(func(other store.Key) bool { return other == key })
}

func (w *countingAnnouncer) Leave(key store.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted[key]--; w.wanted[key] == 0 {
		delete(w.wanted, key)
	}
}

func (w *countingAnnouncer) Flood(bool) {}

// S4, S5: before the viewer's right is confirmed, writers do not notify for the key.
func TestS4NothingIsWantedBeforeItIsConfirmed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
		h, r := startWanted(t, HubConfig{Loader: tb})
		for range 100 {
			subscribe(t, h, 1, 2, 3).Cancel()
		}
		if n := entries(h); len(r.wanted) > 0 || n > 0 {
			t.Errorf("wanted %v, %d entries", r.wanted, n)
		}
		s := subscribe(t, h, 1)
		wantProgress(t, s, map[int64]int{1: 10})
		tb.set(row(1, "a", 11)) // announced to nobody
		s.Confirm()
		wantProgress(t, s, map[int64]int{1: 11})
		if r.wanted["1"] != 1 {
			t.Errorf("wanted %v", r.wanted)
		}
		s.Cancel()
		if len(r.wanted) > 0 {
			t.Errorf("wanted %v after the last has left", r.wanted)
		}
	})
}
