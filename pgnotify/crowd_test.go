package pgnotify

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Everybody comes back after a restart, within seconds: reads follow the clock and not the number of those who come.
func TestCrowdSharesItsReads(t *testing.T) {
	t.Parallel()
	for _, gap := range []time.Duration{50 * time.Microsecond, 200 * time.Microsecond, 400 * time.Microsecond} {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable()
			tb.takes = time.Millisecond
			h := startHub(t, HubConfig{Loader: tb})
			var wg sync.WaitGroup
			start := time.Now()
			for n := range int64(1000) {
				wg.Go(func() {
					from := time.Now()
					subscribe(t, h, 1+n%50)
					if took := time.Since(from); took > crowdWait+2*tb.takes+crowdGap {
						t.Errorf("a subscriber waited %v, want %v and two reads at most", took, crowdWait)
					}
				})
				time.Sleep(gap)
			}
			wg.Wait()
			if most := 3 + int(time.Since(start)/crowdWait); tb.count() > most {
				t.Errorf("%d reads for 1000 subscribers within %v, want %d at most", tb.count(), time.Since(start), most)
			}
		})
	}
}

func TestOneSubscriberDoesNotWaitForACrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.takes = time.Millisecond
		h := startHub(t, HubConfig{Loader: tb})
		start := time.Now()
		for n := range int64(10) { // one after the other
			subscribe(t, h, n+1)
		}
		if took := time.Since(start); took != 10*tb.takes {
			t.Errorf("10 subscribers took %v, want 10 reads of %v and no pause", took, tb.takes)
		}
	})
}

func TestChangeDoesNotWaitForACrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		var wg sync.WaitGroup
		for n := range int64(50) {
			for range 2 {
				wg.Go(func() { subscribe(t, h, n+2) })
			}
			if n == 20 {
				tb.set(running(1, 20))
				start := time.Now()
				h.Notify(1)
				wantProgress(t, states, 20)
				if waited := time.Since(start); waited != 0 {
					t.Errorf("a change waited %v for a crowd", waited)
				}
			}
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
	})
}
