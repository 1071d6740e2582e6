package pgnotify

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
)

// floods is an Announcer that records the calls of Flood.
type floods struct {
	alwaysAnnouncer
	mu   sync.Mutex
	told []bool
}

func (f *floods) Flood(flooded bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, flooded)
}

func (f *floods) want(t *testing.T, want ...bool) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.told, want) {
		t.Errorf("told %v, want %v", f.told, want)
	}
}

// change changes 500 audits in turn, one each millisecond, and announces it unless the hub reads on a timer. It returns the newest progress.
func change(tb *table, h *Hub, progress int, lasts time.Duration) int {
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(time.Millisecond) {
		progress++
		id := int64(progress%500) + 1
		tb.set(row(id, "a", progress))
		if !h.pace.flooded() {
			h.Notify(store.IntKey(id))
		}
	}
	return progress
}

// A flood lasts while there are many changes, announced or not, and ends when there were few for a while.
func TestFloodLastsAsLongAsItIsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 500)
		told := new(floods)
		h := startHub(t, HubConfig{Loader: tb, Announcer: told})
		subscribe(t, h, ids...).Confirm()
		told.want(t)
		progress := change(tb, h, 1, 5*minCalm)
		told.want(t, true)
		for range 3 {
			time.Sleep(minCalm / 2)
			progress = change(tb, h, progress, time.Second)
		}
		told.want(t, true)
		time.Sleep(minCalm + time.Second)
		told.want(t, true, false)
		h.Notify("1") // and calm it is
		time.Sleep(time.Minute)
		told.want(t, true, false)
	})
}

// In a flood, changes are read on a timer and not announced. Afterwards they are announced again.
func TestFloodIsReadOnATimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 500)
		tb.setTakes(2 * time.Millisecond)
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, ids...)
		s.Confirm()
		progress := change(tb, h, 1, 2*time.Second)
		if !h.pace.flooded() {
			t.Fatal("1,000 changes a second are no flood")
		}
		s.Take()
		tb.set(row(7, "a", progress+1))
		time.Sleep(minFloodInterval + 5*time.Millisecond)
		if got := s.Take(); !slices.ContainsFunc(got, func(s *store.State) bool { return s.ID == "7" && s.Row.Progress == progress+1 }) {
			t.Error("in a flood a change was not seen within 55 ms")
		}
		time.Sleep(minCalm + time.Second)
		if h.pace.flooded() {
			t.Error("still a flood")
		}
	})
}

func TestNoFloodWhereNoneIsWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 500)
		h := startHub(t, HubConfig{Loader: tb, NoFlood: true})
		subscribe(t, h, ids...)
		change(tb, h, 1, 3*time.Second)
		if h.pace.flooded() {
			t.Error("a flood")
		}
	})
}

// Writers of rows that nobody watches notify, too, when somebody watches another row of the bucket: with more watched rows than buckets, all
// writers notify, and wait for each other. A flood that comes back at once ends later each time.
func TestNotificationsInVainAreAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		told := new(floods)
		h := startHub(t, HubConfig{Loader: tb, Announcer: told})
		subscribe(t, h, many(tb, 10)...).Confirm()
		vain := func() {
			for range 1000 {
				if !h.pace.flooded() {
					h.Notify("4711")
				}
				time.Sleep(time.Millisecond)
			}
		}
		vain()
		told.want(t, true)
		time.Sleep(minCalm + time.Second)
		told.want(t, true, false)
		vain()
		told.want(t, true, false, true)
		time.Sleep(minCalm)
		told.want(t, true, false, true)
		time.Sleep(minCalm + time.Second)
		told.want(t, true, false, true, false)
	})
}
