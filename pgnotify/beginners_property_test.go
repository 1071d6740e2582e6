package pgnotify

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// troop drives groups against a database whose writers ring as triggers do, without a safety net.
type troop struct {
	t        *testing.T
	seed     uint64
	r        *rand.Rand
	db       *database
	hub      *Hub
	writers  sync.WaitGroup
	begun    int64 // audits, of which some may not have committed
	sessions int64
	crews    []*crew
}

func (tr *troop) begin(takes time.Duration) {
	tr.begun++
	id, owner := tr.begun, []string{"alice", "alice", "bob"}[tr.r.IntN(3)]
	tr.writers.Go(func() {
		tr.db.transaction(tr.hub, id, true, takes, func(row *store.Audit) { *row = of(owner, running(id, row.Progress)) })
	})
}

// change updates an audit that has been committed. What alice loses goes to somebody who watches nothing.
func (tr *troop) change(takes time.Duration) {
	id, as := tr.r.Int64N(tr.begun)+1, tr.r.IntN(25)
	if tr.db.table.row(id).ID == 0 {
		return
	}
	tr.writers.Go(func() {
		tr.db.transaction(tr.hub, id, false, takes, func(row *store.Audit) {
			switch {
			case as == 0:
				row.Status = "completed"
			case as == 1:
				*row = of("carol", *row)
			}
		})
	})
}

func (tr *troop) gather() {
	c := &crew{last: make(map[int64]*store.State)}
	var err error
	if tr.r.IntN(2) == 0 {
		c.states, c.cancel, err = tr.hub.SubscribeOwned(tr.t.Context(), alice, nil)
	} else {
		for id := range tr.begun {
			if tr.r.IntN(2) == 0 {
				c.ids = append(c.ids, id+1)
			}
		}
		if c.ids == nil {
			return
		}
		c.states, c.cancel, err = tr.hub.SubscribeMany(tr.t.Context(), c.ids, nil)
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.crews = append(tr.crews, c)
}

func (tr *troop) dismiss() {
	if len(tr.crews) > 0 {
		i := tr.r.IntN(len(tr.crews))
		tr.crews[i].cancel()
		tr.crews = slices.Delete(tr.crews, i, i+1)
	}
}

func (tr *troop) look() {
	for _, c := range tr.crews {
		select {
		case states := <-c.states:
			for _, state := range states {
				if before := c.last[state.ID]; before != nil && state.Found && state.Audit.Progress < before.Audit.Progress {
					tr.t.Errorf("seed %d: audit %d went back from %s to %s", tr.seed, state.ID, before.JSON, state.JSON)
				}
				c.last[state.ID] = state
			}
		default:
		}
	}
}

func (tr *troop) act() {
	ms := func(n int) time.Duration { return time.Duration(tr.r.IntN(n)) * time.Millisecond }
	switch tr.r.IntN(9) {
	case 0: // a listening connection lost and found
		tr.hub.Listening(0)
		time.Sleep(ms(50))
		tr.sessions++
		tr.hub.Listening(7 + tr.sessions)
		tr.hub.Resync()
	case 1, 2:
		if tr.r.IntN(3) == 0 {
			tr.dismiss()
		} else {
			tr.gather()
		}
	case 3: // load
		for range 150 {
			tr.change(ms(20))
			time.Sleep(time.Millisecond)
		}
	case 4: // looked long before they commit
		tr.change(ms(5000))
		tr.begin(ms(5000))
	case 5:
		time.Sleep(ms(4000))
	case 6:
		tr.begin(ms(3))
		time.Sleep(ms(10))
		tr.change(ms(3))
	default:
		tr.begin(0)
		tr.change(0)
	}
	tr.look()
}

// wantRows checks that each group was shown what there is.
func (tr *troop) wantRows() {
	for _, c := range tr.crews {
		for id := int64(1); id <= tr.begun; id++ {
			row, last := tr.db.table.row(id), c.last[id]
			watched := slices.Contains(c.ids, id)
			if c.ids == nil {
				watched = last != nil || row.OwnedBy(alice) && !row.Terminal()
				if last != nil && last.Terminal() || last != nil && !row.OwnedBy(alice) && !last.Audit.OwnedBy(alice) {
					continue // it has left
				}
			}
			if watched && (last == nil || last.Audit.Progress != row.Progress) {
				tr.t.Errorf("seed %d: a group of %v ends audit %d with %+v, the row is %+v", tr.seed, c.ids, id, last, row)
			}
		}
	}
}

// TestGroupsMissNothingWhateverTheLoad is TestNothingIsMissedWhateverTheLoad for groups, of which some are of all that alice
// owns: neither what they watch nor what begins meanwhile may be missed.
func TestGroupsMissNothingWhateverTheLoad(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			db, h := hotFixture(t, 0, HubConfig{Registerer: reg})
			db.takes = func() time.Duration { return time.Duration(rand.Int64N(int64(5 * time.Millisecond))) }
			tr := &troop{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 0)), db: db, hub: h}
			for range 3 {
				tr.begin(0)
			}
			tr.writers.Wait()
			for range 50 {
				tr.act()
			}
			tr.writers.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			tr.look()
			tr.wantRows()
			if missed := metric(t, reg, "auditstream_notifications_missed_total"); missed != 0 {
				t.Errorf("seed %d: %v missed, want none: there is no safety net to find any", seed, missed)
			}
			for id := range tr.begun + 1 {
				if h.wanted(id) && h.heat.hot[id] == nil && db.registered[id] == 0 {
					t.Errorf("seed %d: %d is not registered", seed, id)
				}
			}
			_, cancel, err := h.SubscribeOwned(t.Context(), alice, nil) // whoever leaves has things tidied up
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			for _, c := range tr.crews {
				c.cancel()
			}
			synctest.Wait()
			wantNothingLeft(t, h)
			time.Sleep(time.Minute)
			db.wantRegistered(t) // neither this session's nor those of the lost ones
		})
	}
}
