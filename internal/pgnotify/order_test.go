package pgnotify

import (
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"

	"github.com/prometheus/client_golang/prometheus"
)

func (tb *table) setTakes(d time.Duration) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.takes = d
}

func (tb *table) count() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return len(tb.reads)
}

// A read sees the table as it was at its beginning, so a subscriber that comes during a read gets the result of a later one.
func TestFirstStateIsFromAReadThatBeganAfterSubscribe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.set(row(1, "a", 10))
		tb.setTakes(100 * time.Millisecond)
		h := startHub(t, HubConfig{Loader: tb})
		go func() { _, _ = h.Subscribe(t.Context(), keys([]int64{1}), nil) }() // its read begins now and sees 10
		time.Sleep(50 * time.Millisecond)
		tb.set(row(1, "a", 20)) // nobody announces it
		start := time.Now()
		wantProgress(t, subscribe(t, h, 1), map[int64]int{1: 20})
		if took := time.Since(start); took != 150*time.Millisecond || tb.count() != 2 {
			t.Errorf("%v and %d reads, want 150 ms and 2", took, tb.count())
		}
	})
}

func TestNotificationDuringAReadLeadsToAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.set(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, 1)
		s.Take()
		tb.setTakes(100 * time.Millisecond)
		h.Notify("1")
		time.Sleep(50 * time.Millisecond) // the read has looked
		tb.set(row(1, "a", 20))
		h.Notify("1")
		time.Sleep(100 * time.Millisecond)
		wantProgress(t, s, nil) // the first read found nothing new
		time.Sleep(100 * time.Millisecond)
		wantProgress(t, s, map[int64]int{1: 20})
	})
}

func TestNewestStateWinsAndTheEndIsNotReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.set(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, 1)
		for p := range 20 {
			tb.set(row(1, "a", p))
			h.Notify("1")
			synctest.Wait()
		}
		wantProgress(t, s, map[int64]int{1: 19})
		done := row(1, "a", 100)
		done.Status = "completed"
		tb.set(done)
		h.Notify("1")
		synctest.Wait()
		tb.set(row(1, "a", 1))
		h.Notify("1")
		wantProgress(t, s, map[int64]int{1: 100})
	})
}

// Hundreds of subscribers that come at once share reads, and each waits for the current read and its own at most.
func TestNewcomersShareReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.setTakes(5 * time.Millisecond)
		h := startHub(t, HubConfig{Loader: tb})
		for id := range int64(300) {
			go func() {
				start := time.Now()
				if _, err := h.Subscribe(t.Context(), keys([]int64{id + 1}), nil); err != nil || time.Since(start) > 10*time.Millisecond {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			}()
		}
		time.Sleep(time.Second)
		if n := tb.count(); n > 2 {
			t.Errorf("%d reads for 300 who came at once", n)
		}
	})
}

func TestMissedChangesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		for id := range int64(4) {
			tb.set(row(id+1, "a", 0))
		}
		registry := prometheus.NewRegistry()
		missed := func() float64 { return metric(t, registry, "auditstream_notifications_missed_total") }
		h := startHub(t, HubConfig{Loader: tb, Registerer: registry})
		s := subscribe(t, h, 1, 2, 3)
		s.Confirm()
		other := subscribe(t, h, 4) // writers are not told of it
		time.Sleep(time.Second)
		tb.set(row(1, "a", 1)) // announced
		h.Notify("1")
		tb.set(row(2, "a", 1)) // late
		tb.set(row(3, "a", 1)) // missed
		tb.set(row(4, "a", 1))
		time.Sleep(9500 * time.Millisecond)
		h.Notify("2")
		time.Sleep(30 * time.Second)
		if missed() != 1 {
			t.Errorf("%v missed, want 1", missed())
		}
		h.Resync() // whose changes prove nothing
		tb.set(row(1, "a", 2))
		h.Resync()
		time.Sleep(30 * time.Second)
		if missed() != 1 {
			t.Errorf("%v missed, want 1", missed())
		}
		s.Cancel()
		other.Cancel()
	})
}

// In a flood, changes are read on a timer and not announced. Afterwards they are announced again.
func TestFloodIsReadOnATimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		var ids []int64
		for id := range int64(500) {
			tb.set(row(id+1, "a", 0))
			ids = append(ids, id+1)
		}
		tb.setTakes(2 * time.Millisecond)
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, ids...)
		s.Confirm()
		s.Take()
		progress := 0
		for range 2000 { // 1,000 a second
			progress++
			id := int64(progress%500) + 1
			tb.set(row(id, "a", progress))
			if !h.pace.flooded() {
				h.Notify(store.IntKey(id))
			}
			time.Sleep(time.Millisecond)
		}
		if !h.pace.flooded() {
			t.Fatal("1,000 changes a second are no flood")
		}
		s.Take()
		tb.set(row(7, "a", progress+1))
		time.Sleep(minFloodInterval + 5*time.Millisecond)
		var seen *store.State
		for _, state := range s.Take() {
			if state.ID == "7" {
				seen = state
			}
		}
		if seen == nil || seen.Audit.Progress != progress+1 {
			t.Error("in a flood a change was not seen within 55 ms")
		}
		time.Sleep(minCalm + time.Second)
		if h.pace.flooded() {
			t.Error("still a flood")
		}
	})
}
