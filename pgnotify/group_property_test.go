package pgnotify

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

// crew is a group of the machine, and what it has seen.
type crew struct {
	ids    []int64 // nil: all that alice owns
	states <-chan []*store.State
	cancel func()
	last   map[int64]*store.State
}

// groupMachine drives a hub's groups, beside single streams, with whatever may happen. Progress only grows.
type groupMachine struct {
	machine
	crews []*crew
}

const groupAudits = 4

func (m *groupMachine) change(t *rapid.T) {
	id := rapid.Int64Range(1, groupAudits).Draw(t, "id")
	m.version++
	row := running(id, m.version)
	switch rapid.SampledFrom([]string{"running", "running", "running", "completed", "deleted"}).Draw(t, "as") {
	case "deleted":
		m.tb.drop(id)
	case "completed":
		row.Status = "completed"
		fallthrough
	default:
		m.tb.set(of(rapid.SampledFrom([]string{"alice", "alice", "alice", "bob"}).Draw(t, "owner"), row))
	}
	if !m.lossy || rapid.IntRange(0, 3).Draw(t, "lost") > 0 {
		m.hub.Notify(id)
	}
}

func (m *groupMachine) gather(t *rapid.T) {
	c := &crew{last: make(map[int64]*store.State)}
	ctx, stop := context.WithTimeout(context.Background(), rapid.SampledFrom([]time.Duration{time.Minute, time.Minute, time.Millisecond}).Draw(t, "patience"))
	defer stop()
	var err error
	if rapid.Bool().Draw(t, "owned") {
		c.states, c.cancel, err = m.hub.SubscribeOwned(ctx, alice, nil)
	} else {
		c.ids = rapid.SliceOfNDistinct(rapid.Int64Range(1, groupAudits), 1, groupAudits, rapid.ID[int64]).Draw(t, "ids")
		c.states, c.cancel, err = m.hub.SubscribeMany(ctx, c.ids, nil)
	}
	if err != nil {
		return
	}
	m.crews = append(m.crews, c)
	m.takeSlot(t, c)
	for _, id := range c.ids {
		if c.last[id] == nil {
			t.Fatalf("no first state of %d among %v", id, c.ids)
		}
	}
	m.wantRows(t, c) // nothing has changed since: the machine is one goroutine
}

func (m *groupMachine) takeSlot(t *rapid.T, c *crew) {
	var states []*store.State
	select {
	case states = <-c.states:
	default:
	}
	seen := make(map[int64]bool)
	for _, state := range states {
		before := c.last[state.ID]
		switch {
		case seen[state.ID]:
			t.Fatalf("audit %d is in the slot twice", state.ID)
		case c.ids != nil && !slices.Contains(c.ids, state.ID):
			t.Fatalf("audit %d was not asked for", state.ID)
		case c.ids != nil && before != nil && before.Terminal():
			t.Fatalf("audit %d goes on after its end, with %s", state.ID, state.JSON)
		case before != nil && state.Found && state.Audit.Progress < before.Audit.Progress:
			t.Fatalf("audit %d went back from %s to %s", state.ID, before.JSON, state.JSON)
		case before != nil && c.ids != nil && state.Found && before.Same(state):
			t.Fatalf("audit %d was shown %s twice", state.ID, state.JSON)
		}
		seen[state.ID] = true
		c.last[state.ID] = state
	}
}

// wantRows checks that the group was shown what there is.
func (m *groupMachine) wantRows(t *rapid.T, c *crew) {
	m.tb.mu.Lock()
	defer m.tb.mu.Unlock()
	for id := range int64(groupAudits + 1) {
		last := c.last[id]
		row, found := m.tb.rows[id]
		if c.ids != nil {
			if slices.Contains(c.ids, id) && !last.Terminal() && (last.Found != found || last.Audit.Progress != row.Progress) {
				t.Fatalf("audit %d of %v is shown as %s, the row is %+v, %v", id, c.ids, last.JSON, row, found)
			}
			continue
		}
		running := last != nil && last.Found && !last.Terminal() && last.Audit.OwnedBy(alice)
		if runs := found && row.OwnedBy(alice) && !row.Terminal(); runs != running || runs && last.Audit.Progress != row.Progress {
			t.Fatalf("alice's audit %d is shown as %+v, the row is %+v, %v", id, last, row, found)
		}
	}
}

func (m *groupMachine) settle(t *rapid.T) {
	m.tb.failWith(nil)
	m.tb.failFindsWith(nil)
	// Twice, because an audit that begins anew comes in when its end has been taken.
	for range 2 {
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, c := range m.crews {
			m.takeSlot(t, c)
		}
	}
	for _, c := range m.crews {
		m.wantRows(t, c)
	}
}

func TestGroupsKeepTheirPromisesWhateverHappens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			m := &groupMachine{machine: machine{tb: newTable(), reg: prometheus.NewRegistry(), lossy: rapid.Bool().Draw(rt, "lossy")}}
			hub, err := NewHub(HubConfig{Loader: m.tb, Finder: m.tb, Interval: 5 * time.Second, ReadTimeout: 40 * time.Millisecond, Registerer: m.reg})
			if err != nil {
				rt.Fatal(err)
			}
			m.hub = hub
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = hub.Run(ctx) })
			defer running.Wait()
			defer cancel()
			actions := m.actions()
			for _, name := range []string{"update 2", "another", "quiesce"} {
				delete(actions, name)
			}
			actions["update"], actions["change"], actions["gather"], actions["settle"] = m.change, m.change, m.gather, m.settle
			actions["fail finds"] = func(t *rapid.T) {
				m.tb.failFindsWith(rapid.SampledFrom([]error{nil, nil, errDatabase}).Draw(t, "with"))
			}
			actions["take slots"] = func(t *rapid.T) {
				for _, c := range m.crews {
					m.takeSlot(t, c)
				}
			}
			actions["dismiss"] = func(t *rapid.T) {
				if len(m.crews) > 0 {
					i := rapid.IntRange(0, len(m.crews)-1).Draw(t, "group")
					m.crews[i].cancel()
					m.crews = slices.Delete(m.crews, i, i+1)
				}
			}
			rt.Repeat(actions)
			m.settle(rt)
			for _, c := range m.crews {
				c.cancel()
			}
			for _, s := range m.streams {
				s.cancel()
			}
			synctest.Wait()
			wantNothingLeft(t, hub)
		})
	})
}
