package pgnotify

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// database is rows, registrations and transactions as PostgreSQL has them: a writer looks in its transaction, and rings at
// its commit when it saw its audit registered.
type database struct {
	*table
	mu         sync.Mutex
	registered map[int64]int64 // by audit, the instance
	open       map[uint64]bool
	xid        uint64 // the newest that was drawn
	ended      uint64 // the newest that has ended
	version    int
	takes      func() time.Duration // every statement of the registry
	refuse     error                // what Unregister fails with

	unregisters int
}

func newDatabase(audits int64) *database {
	db := &database{table: newTable(), registered: make(map[int64]int64), open: make(map[uint64]bool), xid: 100, ended: 100,
		takes: func() time.Duration { return 0 }}
	for id := range audits {
		db.table.set(running(id+1, 0))
	}
	return db
}

func (db *database) Register(_ context.Context, instance int64, ids []int64) (Snapshot, error) {
	mine := db.begin()
	time.Sleep(db.takes())
	db.mu.Lock()
	for _, id := range ids {
		db.registered[id] = instance
	}
	db.end(mine)
	db.mu.Unlock()
	time.Sleep(db.takes())
	db.mu.Lock()
	defer db.mu.Unlock()
	snap := db.snapshot()
	db.xid++
	db.end(db.xid)
	return snap.extended(db.xid), nil
}

// begin draws a transaction's id.
func (db *database) begin() uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.xid++
	db.open[db.xid] = true
	return db.xid
}

// end is a commit. The caller holds mu.
func (db *database) end(xid uint64) {
	delete(db.open, xid)
	db.ended = max(db.ended, xid)
}

// snapshot does not know what is newer than all that have ended, as PostgreSQL's does not. The caller holds mu.
func (db *database) snapshot() Snapshot {
	snap := Snapshot{Xmax: db.ended + 1, InProgress: slices.Sorted(maps.Keys(db.open))}
	snap.InProgress = slices.DeleteFunc(snap.InProgress, func(xid uint64) bool { return xid >= snap.Xmax })
	return snap
}

func (db *database) Unregister(_ context.Context, instance int64, ids []int64) (int, error) {
	time.Sleep(db.takes())
	db.mu.Lock()
	defer db.mu.Unlock()
	db.unregisters++
	if db.refuse != nil {
		return 0, db.refuse
	}
	maps.DeleteFunc(db.registered, func(id, of int64) bool { return ids == nil || of != instance || slices.Contains(ids, id) })
	return len(db.registered), nil
}

func (db *database) Snapshot(context.Context) (Snapshot, error) {
	time.Sleep(db.takes())
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.snapshot(), nil
}

// wipe empties the table.
func (db *database) wipe() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.registered)
}

func (db *database) unregistrations() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.unregisters
}

// write is a transaction that takes so long after its look, and says whether it rang.
func (db *database) write(h *Hub, id int64, takes time.Duration) (rang bool) {
	return db.transaction(h, id, false, takes, func(row *store.Audit) { *row = running(id, row.Progress) })
}

// transaction changes or inserts a row. What change is given has a progress higher than any before. What has ended stays so.
func (db *database) transaction(h *Hub, id int64, insert bool, takes time.Duration, change func(row *store.Audit)) (rang bool) {
	xid := db.begin()
	db.mu.Lock()
	rang = db.registered[id] != 0 || insert && db.registered[whateverBegins] != 0
	db.mu.Unlock()
	time.Sleep(takes)
	db.mu.Lock()
	db.end(xid)
	row := db.table.row(id)
	if row.Terminal() {
		db.mu.Unlock()
		return false
	}
	db.version++
	row.ID, row.Progress = id, db.version
	change(&row)
	db.table.set(row)
	db.mu.Unlock()
	if rang {
		h.Notify(id)
	}
	return rang
}

func (db *database) wantRegistered(t testing.TB, want ...int64) {
	t.Helper()
	synctest.Wait()
	db.mu.Lock()
	defer db.mu.Unlock()
	if got := slices.Sorted(maps.Keys(db.registered)); !slices.Equal(got, want) {
		t.Errorf("registered: %v, want %v", got, want)
	}
}

// load writes the audits in turn for a while, so many a second.
func (db *database) load(h *Hub, rate int, duration time.Duration, audits ...int64) (rang int) {
	for n := range int(duration.Seconds() * float64(rate)) {
		if db.write(h, audits[n%len(audits)], 0) {
			rang++
		}
		time.Sleep(time.Second / time.Duration(rate))
	}
	return rang
}

const never = 1000 * time.Hour // for the safety net

func hotFixture(t *testing.T, audits int64, cfg HubConfig) (*database, *Hub) {
	t.Helper()
	db := newDatabase(audits)
	cfg.Loader, cfg.Registry, cfg.Finder = db, db, db
	if cfg.Interval == 0 {
		cfg.Interval = never
	}
	h := startHub(t, cfg)
	h.Listening(7)
	return db, h
}

func TestHotAuditIsPolledAndRingsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		db, h := hotFixture(t, 20, HubConfig{Registerer: reg})
		var viewers []<-chan *store.State
		for id := range int64(20) {
			viewers = append(viewers, subscribe(t, h, id+1))
		}
		db.load(h, 1000, 2*time.Second, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		db.wantRegistered(t, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
		if got := metric(t, reg, "auditstream_hot_audits"); got != 10 {
			t.Errorf("auditstream_hot_audits %v, want 10", got)
		}
		reads := db.count()
		if rang := db.load(h, 1000, 10*time.Second, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10); rang != 0 {
			t.Errorf("%d of the hot audits' writes rang, want none", rang)
		}
		if got, most := db.count()-reads, int(10*time.Second/hotInterval)+1; got < most-5 || got > most {
			t.Errorf("%d reads in 10 s, want one in %v", got, hotInterval)
		}
		db.write(h, 3, 0)
		db.mu.Lock()
		last := db.version
		db.mu.Unlock()
		time.Sleep(hotInterval)
		synctest.Wait()
		wantProgress(t, viewers[2], last)
		if got := metric(t, reg, "auditstream_notifications_missed_total"); got != 0 {
			t.Errorf("%v missed notifications, want none: what is polled is not announced", got)
		}
		// It cools, is registered, and its changes are pushed again.
		time.Sleep(hotStill + 2*hotInterval)
		db.wantRegistered(t, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
		reads = db.count()
		if !db.write(h, 3, 0) {
			t.Error("a write after the audit has cooled did not ring")
		}
		synctest.Wait()
		wantProgress(t, viewers[2], last+1)
		time.Sleep(time.Minute)
		if got := db.count() - reads; got != 1 {
			t.Errorf("%d reads after it has cooled, want the one of the ring", got)
		}
	})
}

func TestWithoutLoadNothingGetsHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, test := range map[string]struct {
			rate   int
			audits []int64
			cfg    HubConfig
		}{
			"one busy audit":     {rate: 40, audits: []int64{1}},
			"many that are calm": {rate: 100, audits: seq(1, 100)},
			"switched off":       {rate: 1000, audits: seq(1, 10), cfg: HubConfig{NoPolling: true}},
		} {
			synctest.Wait()
			db, h := hotFixture(t, 100, test.cfg)
			for _, id := range test.audits {
				subscribe(t, h, id)
			}
			if rang := db.load(h, test.rate, 5*time.Second, test.audits...); rang != 5*test.rate {
				t.Errorf("%s: %d of %d writes rang, want all", name, rang, 5*test.rate)
			}
			db.wantRegistered(t, test.audits...)
		}
	})
}

// A second relay rings for each change once more. That makes no load of what is none, and is read like any other ring.
func TestRepeatedRingsAreReadAndHeatNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, h := hotFixture(t, 1, HubConfig{})
		states := subscribe(t, h, 1)
		<-states
		for range 5 * 40 {
			db.write(h, 1, 0)
			h.NotifyAgain(1)
			time.Sleep(time.Second / 40)
		}
		db.wantRegistered(t, 1)
		<-states
		db.table.set(running(1, 99_999))
		h.NotifyAgain(1) // the only one that says so
		synctest.Wait()
		wantProgress(t, states, 99_999)
	})
}

func TestFloodOfManyGetsHotSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, h := hotFixture(t, 500, HubConfig{})
		for _, id := range seq(1, 500) {
			subscribe(t, h, id)
		}
		db.load(h, 2000, 3*time.Second, seq(1, 500)...)
		db.wantRegistered(t)
	})
}

// Thousands of audits, each of which changes every few seconds, made writers wait for each other as a few busy ones do, and none
// of them was polled; or each was, in turn, put back and taken off.
func TestFloodOfSeldomChangesIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const audits, rate = 5000, 1000
		db, h := hotFixture(t, audits, HubConfig{})
		for _, id := range seq(1, audits) {
			subscribe(t, h, id)
		}
		if rang, all := db.load(h, rate, 15*time.Second, seq(1, audits)...), 15*rate; rang > all/2 {
			t.Errorf("%d of %d writes rang, want each audit to ring once or twice", rang, all)
		}
		if rang := db.load(h, rate, 10*time.Second, seq(1, audits)...); rang != 0 {
			t.Errorf("%d writes rang after that, want none", rang)
		}
		time.Sleep(2*hotWindow + hotStill + 3*hotInterval)
		db.wantRegistered(t, seq(1, audits)...)
	})
}

func TestNobodyListensNothingIsHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, h := hotFixture(t, 10, HubConfig{})
		for _, id := range seq(1, 10) {
			subscribe(t, h, id)
		}
		db.load(h, 1000, 2*time.Second, seq(1, 10)...)
		db.wantRegistered(t)
		h.Listening(0)
		time.Sleep(time.Second)
		reads := db.count()
		time.Sleep(time.Minute)
		if got := db.count() - reads; got != 0 {
			t.Errorf("%d reads after the session has ended, want the safety net's alone", got)
		}
		h.Listening(8)
		db.wantRegistered(t, seq(1, 10)...)
	})
}

func TestHotAuditThatCannotBeUnregisteredStaysAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, h := hotFixture(t, 10, HubConfig{Interval: 10 * time.Second})
		db.refuse = errors.New("permission denied for function unwatch")
		var viewer <-chan *store.State
		for _, id := range seq(1, 10) {
			viewer = subscribe(t, h, id)
		}
		db.load(h, 1000, 30*time.Second, seq(1, 10)...)
		db.wantRegistered(t, seq(1, 10)...)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		db.mu.Lock()
		last := db.version
		db.mu.Unlock()
		wantProgress(t, viewer, last)
	})
}

func seq(from, to int64) []int64 {
	var ids []int64
	for id := from; id <= to; id++ {
		ids = append(ids, id)
	}
	return ids
}

// Each audit that got hot caused a read of all that were hot already, so that a load heated them slower than it could.
func TestHeatingUpCostsFewReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, h := hotFixture(t, 500, HubConfig{})
		for _, id := range seq(1, 500) {
			subscribe(t, h, id)
		}
		before, reads := db.unregistrations(), db.count()
		rang := db.load(h, 2000, 3*time.Second, seq(1, 500)...)
		if rang > 2*hotFlood {
			t.Errorf("%d writes rang before all were hot, want %d at most", rang, 2*hotFlood)
		}
		db.wantRegistered(t)
		if got, most := db.unregistrations()-before, 40; got > most {
			t.Errorf("%d statements to take 500 hot audits off, want them taken off together: by %d at most", got, most)
		}
		reads = db.count() - reads
		if most := hotFlood + 2000/10 + int(3*time.Second/hotInterval); reads > most {
			t.Errorf("%d reads while audits became hot, %d at most are for rings and the timer", reads, most)
		}
	})
}

// TestNothingIsMissedWhateverTheLoad has no safety net: registering, cooling, reconnecting, installing anew and writers that looked long
// before they commit must be enough for every viewer to end with the last state.
func TestNothingIsMissedWhateverTheLoad(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			const audits = 6
			db, h := hotFixture(t, audits, HubConfig{})
			db.takes = func() time.Duration { return time.Duration(rand.Int64N(int64(5 * time.Millisecond))) }
			viewers := make(map[int64]<-chan *store.State)
			last := make(map[int64]int)
			cancels := make(map[int64]func())
			var writers sync.WaitGroup
			look := func(id int64) {
				select {
				case state := <-viewers[id]:
					if state.Audit.Progress < last[id] {
						t.Errorf("seed %d: audit %d went back from %d to %d", seed, id, last[id], state.Audit.Progress)
					}
					last[id] = state.Audit.Progress
				default:
				}
			}
			for range 40 {
				id := r.Int64N(audits) + 1
				switch r.IntN(9) {
				case 0: // a listening connection lost and found
					h.Listening(0)
					time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
					h.Listening(int64(r.IntN(100) + 8))
					h.Resync()
				case 1, 2:
					if cancels[id] == nil {
						states, cancel, err := h.Subscribe(t.Context(), id, nil)
						if err != nil {
							t.Fatal(err)
						}
						viewers[id], cancels[id] = states, cancel
					} else if r.IntN(2) == 0 {
						cancels[id]()
						delete(cancels, id)
						delete(viewers, id)
						last[id] = 0
					}
				case 3, 4: // load
					for range 150 {
						writers.Add(1)
						id, hold := r.Int64N(audits)+1, time.Duration(r.IntN(20))*time.Millisecond
						go func() { defer writers.Done(); db.write(h, id, hold) }()
						time.Sleep(time.Millisecond)
					}
				case 5: // looked long before it commits
					writers.Add(1)
					hold := time.Duration(r.IntN(5000)) * time.Millisecond
					go func() { defer writers.Done(); db.write(h, id, hold) }()
				case 6:
					time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
				case 7:
					db.write(h, id, 0)
				case 8: // installed anew, or TRUNCATE
					if r.IntN(2) == 0 {
						db.wipe()
					}
					h.Resync()
				}
				for id := range viewers {
					look(id)
				}
			}
			writers.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			for id := range viewers {
				look(id)
				db.table.mu.Lock()
				want := db.table.rows[id].Progress
				db.table.mu.Unlock()
				if last[id] != want {
					t.Errorf("seed %d: the viewer of audit %d ends with %d, the row has %d", seed, id, last[id], want)
				}
			}
		})
	}
}
