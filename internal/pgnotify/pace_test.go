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

// A flood lasts while there are many changes, announced or not, and ends when there were few for a while.
func TestFloodLastsAsLongAsItIsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 500)
		told := new(floods)
		h := startHub(t, HubConfig{Loader: tb, Announcer: told})
		subscribe(t, h, ids...).Confirm()
		progress := 1
		load := func(lasts time.Duration) {
			for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(time.Millisecond) {
				progress++
				id := int64(progress%500) + 1
				tb.set(row(id, "a", progress))
				if !h.pace.flooded() {
					h.Notify(store.IntKey(id))
				}
			}
		}
		told.want(t)
		load(5 * minCalm)
		told.want(t, true)
		for range 3 {
			time.Sleep(minCalm / 2)
			load(time.Second)
		}
		told.want(t, true)
		time.Sleep(minCalm + time.Second)
		told.want(t, true, false)
		h.Notify("1") // and calm it is
		time.Sleep(time.Minute)
		told.want(t, true, false)
	})
}

func TestNoFloodWhereNoneIsWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 500)
		h := startHub(t, HubConfig{Loader: tb, NoFlood: true})
		subscribe(t, h, ids...)
		for p := range 3000 {
			tb.set(row(int64(p%500)+1, "a", p+2))
			h.Notify(store.IntKey(int64(p%500) + 1))
			time.Sleep(time.Millisecond)
		}
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
