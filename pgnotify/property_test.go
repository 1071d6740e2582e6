package pgnotify

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

const audits = 2 // few, so that streams share them

// stream is a subscriber of the machine, and what it has seen.
type stream struct {
	id     int64
	states <-chan *store.State
	cancel func()
	last   *store.State
}

// machine drives a hub with whatever may happen to it, in any order. Progress only grows, except that a row can be
// deleted and come back, with more progress than it had.
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
	m.version++
	switch rapid.SampledFrom([]string{"running", "running", "running", "completed", "deleted"}).Draw(t, "as") {
	case "deleted":
		m.tb.drop(id)
	case "completed":
		row := completed(id)
		row.Progress = m.version
		m.tb.set(row)
	default:
		m.tb.set(running(id, m.version))
	}
	if m.lossy && rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
		return
	}
	if late := rapid.IntRange(-20, 40).Draw(t, "late"); late > 0 { // as others' commits may delay it
		time.AfterFunc(time.Duration(late)*time.Millisecond, func() { m.hub.Notify(id) })
		return
	}
	m.hub.Notify(id)
}

func (m *machine) subscribe(t *rapid.T) {
	id := rapid.Int64Range(1, audits).Draw(t, "id")
	patience := rapid.SampledFrom([]time.Duration{time.Minute, time.Minute, time.Millisecond}).Draw(t, "patience")
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	states, cancel, err := m.hub.Subscribe(ctx, id, nil)
	if err != nil {
		return
	}
	s := &stream{id: id, states: states, cancel: cancel}
	m.streams = append(m.streams, s)
	m.take(t, s)
	if s.last == nil {
		t.Fatalf("audit %d: no state after Subscribe", id)
	}
	m.tb.mu.Lock()
	row, ok := m.tb.rows[id]
	m.tb.mu.Unlock()
	if ok != s.last.Found || ok && s.last.Audit.Progress != row.Progress {
		t.Fatalf("audit %d opened with %s, the row is %+v", id, s.last.JSON, row)
	}
}

func (m *machine) take(t *rapid.T, s *stream) {
	select {
	case state := <-s.states:
		if state.ID != s.id {
			t.Fatalf("audit %d was shown %d", s.id, state.ID)
		}
		if s.last != nil && state.Found && state.Audit.Progress < s.last.Audit.Progress {
			t.Fatalf("audit %d went back from %s to %s", s.id, s.last.JSON, state.JSON)
		}
		if s.last != nil && state.Found && s.last.Same(state) {
			t.Fatalf("audit %d was shown %s twice", s.id, state.JSON)
		}
		s.last = state
	default:
	}
}

// quiesce checks P1: once all is quiet, each stream that has not ended shows the row.
func (m *machine) quiesce(t *rapid.T) {
	m.tb.failWith(nil)
	time.Sleep(time.Minute)
	synctest.Wait()
	for _, s := range m.streams {
		m.take(t, s)
		m.tb.mu.Lock()
		row, ok := m.tb.rows[s.id]
		m.tb.mu.Unlock()
		if s.last.Terminal() {
			continue // it has ended, or would have
		}
		if s.last.Found != ok || ok && (s.last.Audit.Progress != row.Progress || s.last.Audit.Status != row.Status) {
			t.Fatalf("audit %d shows %s after all is quiet, the row is %+v, %v", s.id, s.last.JSON, row, ok)
		}
		if len(s.states) > cap(s.states) || cap(s.states) != 1 {
			t.Fatalf("slot of %d", cap(s.states))
		}
	}
	if missed := metric(t, m.reg, "auditstream_notifications_missed_total"); missed > 0 && !m.lossy {
		t.Fatalf("%v missed, and no notification was lost", missed)
	}
}

func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"update":    m.update,
		"update 2":  m.update, // twice as often
		"subscribe": m.subscribe,
		"another":   m.subscribe,
		"forged": func(t *rapid.T) {
			m.hub.Notify(rapid.Int64Range(1, 2*audits).Draw(t, "id"))
			if rapid.Bool().Draw(t, "reading") {
				synctest.Wait() // a slow read has looked
			}
		},
		"resync": func(*rapid.T) { m.hub.Resync() },
		"rest":   func(*rapid.T) { synctest.Wait() },
		"pass": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 5, 30, 1000, 4000}).Draw(t, "ms")) * time.Millisecond)
		},
		"fail":    func(t *rapid.T) { m.tb.failWith(rapid.SampledFrom([]error{nil, nil, errDatabase}).Draw(t, "with")) },
		"mend":    func(*rapid.T) { m.tb.failWith(nil) },
		"slow":    func(t *rapid.T) { m.tb.setTakes(time.Duration(rapid.IntRange(0, 30).Draw(t, "ms")) * time.Millisecond) },
		"quiesce": m.quiesce,
		"take": func(t *rapid.T) {
			for _, s := range m.streams {
				m.take(t, s)
			}
		},
		"cancel": func(t *rapid.T) {
			if len(m.streams) > 0 {
				i := rapid.IntRange(0, len(m.streams)-1).Draw(t, "stream")
				m.streams[i].cancel()
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
			hub, err := NewHub(HubConfig{Loader: m.tb, Interval: interval, ReadTimeout: 40 * time.Millisecond, Registerer: reg})
			if err != nil {
				rt.Fatal(err)
			}
			m.hub = hub
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = hub.Run(ctx) })
			defer running.Wait()
			defer cancel()
			rt.Repeat(m.actions())
			m.quiesce(rt)
		})
	})
}

// The same promises with goroutines that really run at the same time.
func TestHubUnderConcurrentLoad(t *testing.T) {
	t.Parallel()
	tb := newTable(running(1, 0), running(2, 0), running(3, 0))
	h := startHub(t, HubConfig{Loader: tb, Interval: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	const last = 2000
	for id := range int64(3) {
		writers.Go(func() {
			for progress := range last {
				tb.set(running(id+1, progress))
				if progress%7 != 0 { // lost
					h.Notify(id + 1)
				}
			}
			tb.set(completed(id + 1))
			h.Notify(id + 1)
		})
	}
	writers.Go(func() {
		for range 200 {
			h.Resync()
			tb.failWith(errDatabase)
			tb.failWith(nil)
		}
	})
	for range 50 {
		readers.Go(func() {
			for ctx.Err() == nil {
				watchToEnd(t, h, 1+rand.Int64N(3), rand.IntN(3) == 0)
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watched)+len(h.dirty) != 0 {
		t.Errorf("%d watched, %d dirty, want none", len(h.watched), len(h.dirty))
	}
}

// watchToEnd follows an audit to its end, or leaves after the first state.
func watchToEnd(t *testing.T, h *Hub, id int64, leave bool) {
	states, stop, err := h.Subscribe(t.Context(), id, nil)
	if err != nil {
		t.Errorf("Subscribe: %v", err)
		return
	}
	defer stop()
	for progress := -1; ; {
		state := <-states
		if state.ID != id || state.Audit.Progress < progress && !state.Terminal() {
			t.Errorf("audit %d went from %d to %s", id, progress, state.JSON)
		}
		if leave || state.Terminal() {
			return
		}
		progress = state.Audit.Progress
	}
}
