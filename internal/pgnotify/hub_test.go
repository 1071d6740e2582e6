package pgnotify

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
)

// table is the database as a hub sees it.
type table struct {
	mu       sync.Mutex
	rows     map[store.Key]store.Audit
	takes    time.Duration // a read, after its look
	perKey   time.Duration // more, for each key
	fail     error
	failFind error
	more     []store.Owner
	reads    [][]store.Key
	finds    int
}

func newTable() *table { return &table{rows: make(map[store.Key]store.Audit)} }

func (tb *table) set(a store.Audit) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.rows[a.ID] = a
}

func (tb *table) Audits(ctx context.Context, ids []store.Key) ([]*store.State, error) {
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

func (tb *table) failWith(err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.fail = err
}

func (tb *table) failFindsWith(err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.failFind = err
}

func (tb *table) setPerKey(d time.Duration) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.perKey = d
}

func (tb *table) drop(id int64) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	delete(tb.rows, store.IntKey(id))
}

func (tb *table) findCount() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.finds
}

// entries counts a hub's while it runs.
func entries(h *Hub) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.entries)
}

func row(id int64, user string, progress int) store.Audit {
	return store.Audit{ID: store.IntKey(id), Status: "running", Progress: progress, UserID: &user}
}

func ended(id int64, user string) store.Audit {
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

func startHub(t *testing.T, cfg HubConfig) *Hub {
	t.Helper()
	cfg.Announcer = cmp.Or(cfg.Announcer, Announcer(alwaysAnnouncer{}))
	h, err := NewHub(cfg)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.Run(t.Context()) }()
	if cfg.Finder != nil {
		go func() { _ = h.Find(t.Context()) }()
	}
	return h
}

// startWanted is startHub, with an Announcer.
func startWanted(t *testing.T, cfg HubConfig) (*Hub, *countingAnnouncer) {
	t.Helper()
	w := &countingAnnouncer{wanted: map[store.Key]int{}}
	cfg.Announcer = w
	h := startHub(t, cfg)
	return h, w
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
	if err != nil {
		t.Fatal(err)
	}
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
		if p, ok := want[state.ID.Int()]; !ok || p != state.Audit.Progress {
			t.Errorf("audit %s: progress %d, want %v", state.ID, state.Audit.Progress, want)
		}
	}
}

func TestSubscribersSeeChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.set(row(1, "a", 10))
		tb.set(row(2, "a", 20))
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
		tb := newTable()
		tb.set(row(1, "a", 10))
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

func TestOwnersSeeWhatBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		s, err := h.SubscribeOwned(t.Context(), store.Viewer{Subject: "a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantProgress(t, s, nil)
		tb.set(row(1, "a", 1))
		tb.set(row(2, "b", 1))
		h.Notify("1")
		h.Notify("2")
		wantProgress(t, s, map[int64]int{1: 1})
		if n := entries(h); n != 1 {
			t.Errorf("%d entries, want that of the owner's", n)
		}
		tb.set(row(1, "b", 2))
		h.Notify("1")
		wantProgress(t, s, map[int64]int{1: 2}) // which shows that it is no longer hers
		synctest.Wait()
		tb.set(row(3, "a", 3)) // announced by nobody
		time.Sleep(11 * time.Second)
		wantProgress(t, s, map[int64]int{3: 3})
		s.Cancel()
		if n := entries(h); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// A change waits for one bounded read at most, however much the safety net reads.
func TestUrgentBeforeRoutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		var ids []int64
		for id := range int64(40_000) {
			tb.set(row(id+1, "a", 1))
			ids = append(ids, id+1)
		}
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, ids...)
		s.Take()
		tb.setTakes(10 * time.Millisecond)
		time.Sleep(9900 * time.Millisecond) // within the round, which takes 0.8 s
		one := subscribe(t, h, 7)
		one.Take()
		for p := range 50 {
			start := time.Now()
			tb.set(row(7, "a", p+2))
			h.Notify("7")
			for one.slotLen() == 0 {
				time.Sleep(time.Millisecond)
			}
			one.Take()
			if waited := time.Since(start); waited > 25*time.Millisecond {
				t.Errorf("a change waited %v", waited)
			}
		}
	})
}

func (s *Subscription) slotLen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.slot)
}

func TestReadsAreTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.set(row(1, "a", 1))
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, 1)
		s.Take()
		tb.failWith(errDatabase)
		tb.set(row(1, "a", 2))
		h.Notify("1")
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := h.Subscribe(ctx, keys([]int64{1}), nil); !errors.Is(err, errDatabase) {
			t.Errorf("%v, want why", err)
		}
		tb.failWith(nil)
		time.Sleep(2 * time.Second)
		wantProgress(t, s, map[int64]int{1: 2})
	})
}

// In a random run without the safety net, every subscriber ends with the newest state, and no subscriber's state goes back.
func TestNobodyMissesAnything(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			tb := newTable()
			tb.takes = 2 * time.Millisecond
			for id := range int64(6) {
				tb.set(row(id+1, "a", 0))
			}
			h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: 24 * time.Hour})
			seen := map[*Subscription]map[int64]int{}
			look := func(s *Subscription) {
				for _, state := range s.Take() {
					if state.Audit.Progress < seen[s][state.ID.Int()] {
						t.Errorf("seed %d: audit %s went back", seed, state.ID)
					}
					seen[s][state.ID.Int()] = state.Audit.Progress
				}
			}
			for range 200 {
				id := 1 + random.Int64N(6)
				switch random.IntN(8) {
				case 0:
					ids := []int64{id}
					if random.IntN(2) == 0 {
						ids = append(ids, id%6+1)
					}
					s := subscribe(t, h, ids...)
					seen[s] = map[int64]int{}
					look(s)
					s.Confirm()
				case 1:
					s, err := h.SubscribeOwned(t.Context(), store.Viewer{Subject: "a"}, nil)
					if err != nil {
						t.Fatal(err)
					}
					seen[s] = map[int64]int{}
				case 2:
					for s := range seen {
						look(s)
						s.Cancel()
						delete(seen, s)
						break
					}
				default:
					tb.mu.Lock()
					r := tb.rows[store.IntKey(id)]
					r.Progress++
					tb.rows[store.IntKey(id)] = r
					tb.mu.Unlock()
					if random.IntN(2) == 0 {
						time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond)
					}
					h.Notify(store.IntKey(id))
				}
				for s := range seen {
					if random.IntN(3) == 0 {
						look(s)
					}
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for s, states := range seen {
				look(s)
				for id, progress := range states {
					if is := tb.rows[store.IntKey(id)].Progress; is != progress {
						t.Errorf("seed %d: audit %d: %d is shown of %d", seed, id, progress, is)
					}
				}
				if s.owners != nil && len(states) != 6 {
					t.Errorf("seed %d: the owner sees %d audits of 6", seed, len(states))
				}
				s.Cancel()
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := entries(h); n > 0 {
				t.Errorf("seed %d: %d entries are left", seed, n)
			}
		})
	}
}
