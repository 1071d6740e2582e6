package pgnotify

import (
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/testkit"
)

func TestNotificationDuringAReadLeadsToAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
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

// A read sees the table as it was at its beginning, so a subscriber that comes during a read gets the result of a later one.
func TestFirstStateIsFromAReadThatBeganAfterSubscribe(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, h *Hub) *Subscription{
		"subscribe": func(t *testing.T, h *Hub) *Subscription { return subscribe(t, h, 1) },
		"TestOwnedOpensWithAReadThatBeganAfterIt": func(t *testing.T, h *Hub) *Subscription { return subscribeOwned(t, h, "a") },
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			tb := newTable(row(1, "a", 10))
			tb.setTakes(100 * time.Millisecond)
			h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
			go func() { _, _ = h.Subscribe(t.Context(), keys([]int64{1}), nil) }() // its read begins now and sees 10
			time.Sleep(50 * time.Millisecond)
			tb.set(row(1, "a", 20)) // nobody announces it
			start := time.Now()
			wantProgress(t, open(t, h), map[int64]int{1: 20})
			if took := time.Since(start); took != 150*time.Millisecond || tb.count() != 2 {
				t.Errorf("%v and %d reads, want 150 ms and 2", took, tb.count())
			}
		}))
	}
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
