package pgnotify

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

const audits = 2 // few, so that streams share them

// stream is a subscriber of the machine, with the states that it has seen.
type stream struct {
	*Subscription
	ids  []int64 // nil: all of alice's
	last map[int64]*store.State
}

// machine does to a hub, in random order, everything that may happen to it. Progress only grows; a deleted row may come back with more
// progress than it had.
type machine struct {
	tb      *table
	hub     *Hub
	reg     *prometheus.Registry
	version int
	streams []*stream
	lossy   bool // notifications get lost, and the safety net is there for them
}

func (m *machine) update(t *rapid.T) {
	id := rapid.Int64Range(1, audits).Draw(t, "id")
	owner := rapid.SampledFrom([]string{"alice", "alice", "bob"}).Draw(t, "owner")
	m.version++
	a := row(id, owner, m.version)
	switch rapid.SampledFrom([]string{"running", "running", "running", "completed", "deleted"}).Draw(t, "as") {
	case "deleted":
		m.tb.drop(id)
	case "completed":
		a.Status = "completed"
		m.tb.set(a)
	default:
		m.tb.set(a)
	}
	if m.lossy && rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
		return
	}
	if late := rapid.IntRange(-20, 40).Draw(t, "late"); late > 0 { // as others' commits may delay it
		time.AfterFunc(time.Duration(late)*time.Millisecond, func() { m.hub.Notify(store.IntKey(id)) })
		return
	}
	m.hub.Notify(store.IntKey(id))
}

func (m *machine) subscribe(t *rapid.T) {
	ids := rapid.SampledFrom([][]int64{{1}, {2}, {1, 2}, nil}).Draw(t, "ids")
	patience := rapid.SampledFrom([]time.Duration{time.Minute, time.Minute, time.Millisecond}).Draw(t, "patience")
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	s := &stream{ids: ids, last: make(map[int64]*store.State)}
	var err error
	if ids == nil {
		s.Subscription, err = m.hub.SubscribeOwned(ctx, store.Viewer{Subject: "alice"}, nil)
	} else {
		s.Subscription, err = m.hub.Subscribe(ctx, keys(ids), nil)
	}
	if err != nil {
		return
	}
	m.take(t, s)
	s.Confirm()
	m.streams = append(m.streams, s)
	for _, id := range ids {
		m.shows(t, s, id)
	}
}

func (m *machine) row(id int64) (store.Row, bool) {
	m.tb.mu.Lock()
	defer m.tb.mu.Unlock()
	a, ok := m.tb.rows[store.IntKey(id)]
	return a, ok
}

// shows checks that a stream shows the row.
func (m *machine) shows(t *rapid.T, s *stream, id int64) {
	a, ok := m.row(id)
	last := s.last[id]
	if last == nil || ok != last.Found || ok && (last.Row.Progress != a.Progress || last.Row.Status != a.Status) {
		t.Fatalf("audit %d shows %+v, the row is %+v, %v", id, last, a, ok)
	}
}

func (m *machine) take(t *rapid.T, s *stream) {
	for _, state := range s.Take() {
		id := state.ID.Int()
		last := s.last[id]
		if s.ids != nil && !slices.Contains(s.ids, id) {
			t.Fatalf("%v were shown %d", s.ids, id)
		}
		if last != nil && state.Found && state.Row.Progress < last.Row.Progress {
			t.Fatalf("audit %d went back from %s to %s", id, last.JSON, state.JSON)
		}
		if last != nil && state.Found && last.Same(state) && s.ids != nil {
			t.Fatalf("audit %d was shown %s twice", id, state.JSON)
		}
		s.last[id] = state
	}
}

// quiesce checks P1: when nothing happens any more, each stream that has not ended shows the row.
func (m *machine) quiesce(t *rapid.T) {
	m.tb.failWith(nil)
	m.tb.failFindsWith(nil)
	time.Sleep(time.Minute)
	synctest.Wait()
	for _, s := range m.streams {
		m.take(t, s)
		for id := range int64(audits) {
			a, ok := m.row(id + 1)
			switch last := s.last[id+1]; {
			case s.ids == nil:
				if ok && !a.Terminal() && *a.UserID == "alice" && (last == nil || !last.Terminal()) { // else it comes in anew with its next read
					m.shows(t, s, id+1)
				}
			case slices.Contains(s.ids, id+1) && !last.Terminal():
				m.shows(t, s, id+1)
			}
		}
	}
	if missed := testkit.Metric(t, m.reg, "auditstream_notifications_missed_total"); missed > 0 && !m.lossy {
		t.Fatalf("%v missed, and no notification was lost", missed)
	}
}

func (m *machine) actions() map[string]func(*rapid.T) {
	fail := func(with func(error)) func(t *rapid.T) {
		return func(t *rapid.T) { with(rapid.SampledFrom([]error{nil, nil, errDatabase}).Draw(t, "with")) }
	}
	return map[string]func(*rapid.T){
		"update":    m.update,
		"update 2":  m.update, // twice as often
		"subscribe": m.subscribe,
		"another":   m.subscribe,
		"forged": func(t *rapid.T) {
			m.hub.Notify(store.IntKey(rapid.Int64Range(1, 2*audits).Draw(t, "id")))
			if rapid.Bool().Draw(t, "reading") {
				synctest.Wait() // a slow read has looked
			}
		},
		"resync": func(*rapid.T) { m.hub.Resync() },
		"mark":   func(*rapid.T) { m.hub.Mark(func(key store.Key) bool { return key != "1" }) },
		"rest":   func(*rapid.T) { synctest.Wait() },
		"pass": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 5, 30, 1000, 4000}).Draw(t, "ms")) * time.Millisecond)
		},
		"fail":      fail(m.tb.failWith),
		"fail find": fail(m.tb.failFindsWith),
		"slow":      func(t *rapid.T) { m.tb.setTakes(time.Duration(rapid.IntRange(0, 30).Draw(t, "ms")) * time.Millisecond) },
		"quiesce":   m.quiesce,
		"take": func(t *rapid.T) {
			for _, s := range m.streams {
				m.take(t, s)
			}
		},
		"cancel": func(t *rapid.T) {
			if len(m.streams) > 0 {
				i := rapid.IntRange(0, len(m.streams)-1).Draw(t, "stream")
				m.streams[i].Cancel()
				m.streams = slices.Delete(m.streams, i, i+1)
			}
		},
	}
}

// inBubble hides the *testing.T from rapid, which would ask it for a deadline, and a bubble has none.
type inBubble struct{ *testing.T }

func TestHubKeepsItsPromisesWhateverHappens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			reg := prometheus.NewRegistry()
			m := &machine{tb: newTable(), reg: reg, lossy: rapid.Bool().Draw(rt, "lossy")}
			interval := 24 * time.Hour
			if m.lossy {
				interval = 5 * time.Second
			}
			hub := newHub(rt, HubConfig{Loader: m.tb, Finder: m.tb, Interval: interval, ReadTimeout: 40 * time.Millisecond, Registerer: reg})
			m.hub = hub
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = hub.Run(ctx) })
			running.Go(func() { _ = hub.Find(ctx) })
			defer running.Wait()
			defer cancel()
			rt.Repeat(m.actions())
			m.quiesce(rt)
			for _, s := range m.streams {
				s.Cancel()
			}
			wantNothingLeft(rt, hub)
		})
	})
}

// The same promises with goroutines that run at the same time.
func TestHubUnderConcurrentLoad(t *testing.T) {
	t.Parallel()
	tb := newTable(row(1, "a", 0), row(2, "a", 0), row(3, "a", 0))
	r := newSessions(t.Context(), nil)
	h := newHub(t, HubConfig{Loader: tb, Announcer: r, Finder: tb, Interval: 20 * time.Millisecond})
	r.Session(newLockTable())
	running, stop := context.WithCancel(t.Context())
	var runs sync.WaitGroup
	for _, run := range []func(context.Context) error{h.Run, h.Find} {
		runs.Go(func() { _ = run(running) })
	}
	defer runs.Wait()
	defer stop()
	defer func() { r.end() }()
	ctx, cancel := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for id := range int64(3) {
		writers.Go(func() {
			for progress := range 2000 {
				tb.set(row(id+1, "a", progress))
				if progress%7 != 0 { // lost
					h.Notify(store.IntKey(id + 1))
				}
			}
			tb.set(ended(id+1, "a"))
			h.Notify(store.IntKey(id + 1))
		})
	}
	writers.Go(func() {
		for n := range 200 {
			h.Resync()
			tb.failWith(errDatabase)
			tb.failWith(nil)
			r.Session(newLockTable())
			r.Flood(n%3 == 0)
		}
	})
	for n := range 50 {
		readers.Go(func() {
			for ctx.Err() == nil {
				watchToEnd(t, h, 1+rand.Int64N(3), n%3 == 0)
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
	h.mu.Lock()
	if n := len(h.byOwner.subs); n != 0 {
		t.Errorf("%d owners are left", n)
	}
	h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for number := range r.buckets {
		if n := r.buckets[number].watched; n != 0 {
			t.Errorf("bucket %d: %d are said to be watched", number, n)
		}
	}
}

// watchToEnd follows an audit to its end, or leaves after the first state.
func watchToEnd(t *testing.T, h *Hub, id int64, leave bool) {
	wake := make(chan struct{}, 1)
	ring := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	s, err := h.Subscribe(t.Context(), keys([]int64{id}), ring)
	if err != nil {
		t.Errorf("Subscribe: %v", err)
		return
	}
	defer s.Cancel()
	if all, err := h.SubscribeOwned(t.Context(), store.Viewer{Subject: "a"}, nil); err != nil {
		t.Errorf("SubscribeOwned: %v", err)
	} else {
		all.Take()
		defer all.Cancel()
	}
	s.Confirm()
	for progress := -1; ; <-wake {
		for _, state := range s.Take() {
			if state.ID.Int() != id || state.Row.Progress < progress && !state.Terminal() {
				t.Errorf("audit %d went from %d to %s", id, progress, state.JSON)
			}
			if leave || state.Terminal() {
				return
			}
			progress = state.Row.Progress
		}
	}
}
