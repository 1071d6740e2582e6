package pgnotify

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSafetyNetFindsWhatNobodyAnnounced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Interval: 10 * time.Second})
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		tb.set(running(1, 20))
		wantNothing(t, states)
		time.Sleep(10 * time.Second)
		wantProgress(t, states, 20)
	})
}

func TestSafetyNetIsOneReadATick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Interval: 10 * time.Second})
		for i := range int64(300) {
			subscribe(t, h, 1+i%100)
		}
		before := tb.count()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		tb.mu.Lock()
		defer tb.mu.Unlock()
		if got := len(tb.reads) - before; got != 1 {
			t.Fatalf("%d reads in a tick, want 1", got)
		}
		if got := len(tb.reads[before]); got != 100 {
			t.Errorf("%d ids in the read, want 100", got)
		}
	})
}

func TestSafetyNetIsSilentWithoutWatchers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		before := tb.count()
		time.Sleep(time.Hour)
		if got := tb.count() - before; got != 0 {
			t.Errorf("%d reads while nobody watches, want none", got)
		}
	})
}

func TestTicksAreShorterByATenthAtRandom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Interval: 10 * time.Second})
		subscribe(t, h, 1)
		time.Sleep(1000 * time.Second)
		tb.mu.Lock()
		defer tb.mu.Unlock()
		seen := make(map[time.Duration]bool)
		for i := 2; i < len(tb.times); i++ { // the first is the subscriber's
			gap := tb.times[i].Sub(tb.times[i-1])
			if gap < 9*time.Second || gap > 10*time.Second {
				t.Errorf("tick %d after %v, want 9 s to 10 s", i, gap)
			}
			seen[gap] = true
		}
		if len(seen) < 50 {
			t.Errorf("%d different ticks of about 105, want them random", len(seen))
		}
	})
}

// A busy channel must not keep the safety net from its turn.
func TestSafetyNetIsNotStarvedByNotifications(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10), running(2, 10))
		tb.takes = 5 * time.Millisecond
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Second})
		quiet := subscribe(t, h, 2)
		subscribe(t, h, 1)
		wantProgress(t, quiet, 10)
		tb.set(running(2, 20)) // unannounced
		for range 1100 {
			h.Notify(1)
			time.Sleep(time.Millisecond)
		}
		wantProgress(t, quiet, 20)
	})
}
