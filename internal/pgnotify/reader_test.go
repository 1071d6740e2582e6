package pgnotify

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

type loaderFunc func(ctx context.Context, keys []store.Key) ([]*store.State, error)

func (f loaderFunc) Rows(ctx context.Context, keys []store.Key) ([]*store.State, error) {
	return f(ctx, keys)
}

func many(tb *table, n int64) (ids []int64) {
	for id := range n {
		tb.set(row(id+1, "a", 1))
		ids = append(ids, id+1)
	}
	return ids
}

// waited is how long a change takes to be shown.
func delayOf(tb *table, h *Hub, s *Subscription, id int64, progress int) time.Duration {
	start := time.Now()
	tb.set(row(id, "a", progress))
	h.Notify(store.IntKey(id))
	for {
		for _, state := range s.Take() {
			if state.Row.Progress == progress {
				return time.Since(start)
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// A read of more rows takes longer, so an urgent row waits for one bounded read at most.
func TestReadsAreBounded(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]func(t *testing.T, h *Hub, ids []int64){
		"of the safety net": func(t *testing.T, h *Hub, ids []int64) {
			subscribe(t, h, ids...)
			time.Sleep(10*time.Second - 100*time.Millisecond)
		},
		"of a resync": func(t *testing.T, h *Hub, ids []int64) { subscribe(t, h, ids...); h.Resync() },
		"that an owner has": func(t *testing.T, h *Hub, _ []int64) {
			go func() { _, _ = h.SubscribeOwned(t.Context(), store.Viewer{Subject: "a"}, nil) }()
		},
		"that an owner gets": func(t *testing.T, h *Hub, ids []int64) {
			subscribeOwned(t, h, "b")
			for _, id := range ids {
				h.Notify(store.IntKey(id))
			}
		},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			tb := newTable()
			ids := many(tb, 20_000)
			h := startHub(t, HubConfig{Loader: tb, Finder: tb})
			s := subscribe(t, h, 7)
			tb.setPerKey(20 * time.Microsecond)
			others(t, h, ids)
			synctest.Wait()
			const rows = 500 // not maxRead, which may be wrong
			const read = rows * 20 * time.Microsecond
			for p := range 50 {
				if late := delayOf(tb, h, s, 7, p+2); late > 2*read+time.Millisecond {
					t.Fatalf("a change waited %v, want %v at most", late, 2*read)
				}
			}
			time.Sleep(time.Second)
			if n := tb.longestRead(); n > rows {
				t.Errorf("a read of %d", n)
			}
		}))
	}
}

// An endless stream of notifications kept less urgent rows from being read: those of the safety net, and those whose lock was just acquired.
func TestNothingIsStarvedByNotifications(t *testing.T) {
	t.Parallel()
	for name, mark := range map[string]func(h *Hub){
		"safety net": func(*Hub) {},
		"resync":     (*Hub).Resync,
		"lock":       func(h *Hub) { h.Mark(func(key store.Key) bool { return key == "2" }) },
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			tb := newTable(row(1, "a", 10), row(2, "a", 10))
			tb.setTakes(5 * time.Millisecond)
			h := startHub(t, HubConfig{Loader: tb, Interval: time.Second})
			quiet := subscribe(t, h, 2)
			subscribe(t, h, 1)
			wantProgress(t, quiet, map[int64]int{2: 10})
			tb.set(row(2, "a", 20)) // unannounced
			stop := time.Now().Add(1100 * time.Millisecond)
			if name != "safety net" {
				stop = time.Now().Add(50 * time.Millisecond)
			}
			for first := true; time.Now().Before(stop); first = false {
				h.Notify("1")
				time.Sleep(time.Millisecond)
				if first {
					mark(h)
				}
			}
			if got := quiet.Take(); len(got) != 1 || got[0].Row.Progress != 20 {
				t.Errorf("%d states, want the change", len(got))
			}
		}))
	}
}

// More than a batch of urgent rows at any time starved the rest in the same way.
func TestNothingIsStarvedByManyNotifications(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 2*maxRead)
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Second, NoFlood: true})
		subscribe(t, h, ids...)
		quiet := subscribe(t, h, 5000)
		quiet.Take()
		tb.setTakes(10 * time.Millisecond)
		tb.set(row(5000, "a", 20)) // unannounced
		for stop := time.Now().Add(1100 * time.Millisecond); time.Now().Before(stop); time.Sleep(time.Millisecond) {
			for _, id := range ids {
				h.Notify(store.IntKey(id))
			}
		}
		wantProgress(t, quiet, map[int64]int{5000: 20})
	})
}

func TestFailingReadsBackOffAndAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		tb := newTable(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Hour, Logger: log.Logger()})
		s := subscribe(t, h, 1)
		wantProgress(t, s, map[int64]int{1: 10})
		tb.failWith(errDatabase)
		tb.set(row(1, "a", 20))
		before := tb.count()
		for range 60_000 { // notifications do not shorten the delay
			h.Notify("1")
			time.Sleep(time.Millisecond)
		}
		if got := tb.count() - before; got < 60 || got > 130 {
			t.Errorf("%d reads in a minute of failures, want one each 0.5 s to 1 s", got)
		}
		wantProgress(t, s, nil)
		tb.failWith(nil)
		time.Sleep(time.Second) // without another notification
		wantProgress(t, s, map[int64]int{1: 20})
		for _, text := range []string{"database read failed", "database reads work again"} {
			if got := log.Count(text); got != 1 {
				t.Errorf("%q was logged %d times, want once:\n%s", text, got, &log)
			}
		}
	})
}

// A row that was urgent when its read failed is still urgent.
func TestFailedReadIsAsUrgentAsBefore(t *testing.T) {
	t.Parallel()
	h := newHub(t, HubConfig{Loader: newTable()})
	want := map[store.Key]urgency{"1": routine, "2": soon, "3": urgent}
	for key, d := range want {
		h.markDirty(h.entry(key), d)
	}
	h.requeue(h.nextBatch(), errDatabase)
	for key, d := range want {
		if got := h.entries[key].dirty; got != d {
			t.Errorf("%s: %d, want %d", key, got, d)
		}
	}
}

func TestReadThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.setTakes(time.Hour)
		h := startHub(t, HubConfig{Loader: tb, ReadTimeout: 3 * time.Second})
		time.AfterFunc(2*time.Second, func() { tb.setTakes(0) })
		start := time.Now()
		subscribe(t, h, 1)
		if got := time.Since(start); got < 3*time.Second || got > 4*time.Second {
			t.Errorf("opened after %v, want 3 s and a back-off", got)
		}
	})
}

func TestFirstReadThatFailsIsTheSubscribersError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.failWith(errDatabase)
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		cause := errors.New("enough")
		for name, subscribe := range map[string]func(ctx context.Context) error{
			"one": func(ctx context.Context) error { _, err := h.Subscribe(ctx, []store.Key{"1"}, nil); return err },
			"many": func(ctx context.Context) error {
				_, err := h.Subscribe(ctx, []store.Key{"1", "2", "3"}, nil)
				return err
			},
			"owned": func(ctx context.Context) error {
				_, err := h.SubscribeOwned(ctx, store.Viewer{Subject: "a"}, nil)
				return err
			},
		} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, cause)
			err := subscribe(ctx)
			cancel()
			if !errors.Is(err, cause) || !errors.Is(err, errDatabase) || !strings.HasPrefix(err.Error(), "first read: ") {
				t.Errorf("%s: error %v, want the context's cause and the read's", name, err)
			}
		}
		wantNothingLeft(t, h)
	})
}

// wantNothingLeft checks that the hub keeps nothing for subscribers that have left.
func wantNothingLeft(t rapid.TB, h *Hub) {
	t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.entries) + len(h.byOwner.subs) + len(h.byOwner.due) + len(h.dirty[routine]) + len(h.dirty[soon]) + len(h.dirty[urgent]); n > 0 {
		t.Errorf("left: %d entries, %d owners, %d due, %d dirty", len(h.entries), len(h.byOwner.subs), len(h.byOwner.due), n)
	}
}

func TestCancelDuringARead(t *testing.T) {
	t.Parallel()
	for _, fail := range []error{nil, errDatabase} {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(row(1, "a", 10))
			h := startHub(t, HubConfig{Loader: tb})
			s := subscribe(t, h, 1)
			wantProgress(t, s, map[int64]int{1: 10})
			tb.setTakes(time.Second)
			tb.failWith(fail)
			tb.set(row(1, "a", 20))
			h.Notify("1")
			time.Sleep(time.Millisecond)
			s.Cancel()
			s.Cancel() // does no harm
			wantNothingLeft(t, h)
			wantProgress(t, s, nil)
			if got := tb.count(); got != 2 {
				t.Errorf("%d reads, want 2: nobody watches any more", got)
			}
		})
	}
}

func TestRunEndsDuringARead(t *testing.T) {
	t.Parallel()
	for name, tb := range map[string]*table{"that lasts": {takes: time.Hour}, "that fails": {fail: errDatabase}} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, HubConfig{Loader: tb, Finder: tb, ReadTimeout: time.Hour})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- h.Run(ctx) }()
			go func() { done <- h.Find(ctx) }()
			go func() { _, _ = h.Subscribe(ctx, []store.Key{"1"}, nil) }()
			synctest.Wait()
			start := time.Now()
			cancel()
			for range 2 {
				if err := <-done; err != nil || time.Since(start) != 0 {
					t.Errorf("%s: Run returned %v after %v, want nil at once", name, err, time.Since(start))
				}
			}
		})
	}
}

func TestHubConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]HubConfig{
		"Loader":      {Announcer: alwaysAnnouncer{}},
		"Announcer":   {Loader: newTable()},
		"Interval":    {Loader: newTable(), Announcer: alwaysAnnouncer{}, Interval: -1},
		"ReadTimeout": {Loader: newTable(), Announcer: alwaysAnnouncer{}, ReadTimeout: -1},
	} {
		_, err := NewHub(cfg)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one that names it", name, err)
		}
	}
}

func TestManyNotificationsAreFewReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Hour})
		h.Notify("1") // nobody watches
		h.Resync()
		synctest.Wait()
		if got := tb.count(); got != 0 {
			t.Errorf("%d reads, want none", got)
		}
		subscribe(t, h, 1)
		tb.setTakes(time.Second)
		before := tb.count()
		for range 10_000 {
			h.Notify("1")
		}
		time.Sleep(5 * time.Second)
		if got := tb.count() - before; got > 2 {
			t.Errorf("%d reads for 10,000 notifications at once, want 2 at most", got)
		}
	})
}

// Any role can send "*". Any number of them causes one read a second of all that is watched, and the last one is not ignored.
func TestFloodOfResyncsCausesOneASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Hour})
		s := subscribe(t, h, 1)
		for range 3 { // after a pause each is heeded at once
			before := tb.count()
			h.Resync()
			synctest.Wait()
			if tb.count() != before+1 {
				t.Error("the resync was delayed")
			}
			time.Sleep(throttleInterval)
		}
		before := tb.count()
		for range 10_000 {
			h.Resync()
			time.Sleep(time.Millisecond)
		}
		for range 2 { // the second too soon
			tb.set(row(1, "a", 40))
			h.Resync()
			time.Sleep(100 * time.Millisecond)
		}
		tb.set(row(1, "a", 50))
		h.Resync()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := tb.count() - before; n < 10 || n > 13 {
			t.Errorf("%d reads of 10,000 resyncs in 10 s, want one at once and one for each second", n)
		}
		got := s.Take()
		if len(got) != 1 || got[0].Row.Progress != 50 {
			t.Errorf("%d states, want what the last resync was about", len(got))
		}
	})
}

func TestSafetyNet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Interval: 10 * time.Second})
		time.Sleep(time.Hour)
		if got := tb.count(); got != 0 {
			t.Errorf("%d reads while nobody watches, want none", got)
		}
		for id := range int64(300) {
			subscribe(t, h, 1+id%100)
		}
		time.Sleep(20 * time.Second)
		seen := make(map[time.Duration]bool)
		last := time.Time{}
		for range 100 {
			before := tb.count()
			for tb.count() == before {
				time.Sleep(time.Millisecond)
			}
			if gap := time.Since(last); !last.IsZero() {
				if gap < 9*time.Second-10*time.Millisecond || gap > 10*time.Second+10*time.Millisecond {
					t.Errorf("a round after %v, want 9 s to 10 s", gap)
				}
				seen[gap] = true
			}
			last = time.Now()
			if n := len(tb.reads[len(tb.reads)-1]); n != 100 || tb.count() != before+1 {
				t.Fatalf("%d reads, the last of %d, want one of all 100", tb.count()-before, n)
			}
		}
		if len(seen) < 50 {
			t.Errorf("%d different intervals of 99, want them random", len(seen))
		}
	})
}

// The next round does not begin before the last one is over, however long reads take.
func TestRoundsDoNotPileUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		ids := many(tb, 20*maxRead)
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Second})
		subscribe(t, h, ids...)
		tb.setTakes(200 * time.Millisecond) // 4 s a round
		time.Sleep(time.Minute)
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.dirty[routine]); n > len(ids) {
			t.Errorf("%d wait, of %d", n, len(ids))
		}
	})
}

func TestUnreadableRowIsDeliveredAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad := true
		h := startHub(t, HubConfig{Loader: loaderFunc(func(context.Context, []store.Key) ([]*store.State, error) {
			if bad {
				return []*store.State{{ID: "1", Err: errors.New("cannot be converted")}}, nil
			}
			return []*store.State{store.NewState(row(2, "a", 50)), store.NewState(row(1, "a", 10)), store.NewState(row(1, "a", 99))}, nil
		})})
		s := subscribe(t, h, 1)
		if got := s.Take(); len(got) != 1 || got[0].Err == nil {
			t.Errorf("got %+v, want an error", got)
		}
		h.Notify("1")
		wantProgress(t, s, nil) // the same error again is no news
		bad = false
		h.Notify("1")
		wantProgress(t, s, map[int64]int{1: 10}) // what was not asked for is ignored, and of two answers the second
	})
}

func TestDeletedRowIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, 1)
		s.Take()
		tb.drop(1)
		h.Notify("1")
		synctest.Wait()
		if got := s.Take(); len(got) != 1 || got[0].Found || got[0].ID != "1" {
			t.Errorf("got %+v, want that audit 1 is not found", got)
		}
		tb.set(row(1, "a", 10)) // the very same row again
		h.Notify("1")
		wantProgress(t, s, map[int64]int{1: 10})
		tb.set(row(1, "eve", 10)) // the same JSON, of somebody else
		h.Notify("1")
		synctest.Wait()
		if got := s.Take(); len(got) != 1 || *got[0].Row.UserID != "eve" {
			t.Errorf("got %+v, want the state with another owner", got)
		}
	})
}

// Under its lock the hub only works on maps, so 40,000 subscribers may come and go at once.
func TestS3ManyComeAndGoWithinMilliseconds(t *testing.T) {
	tb := newTable()
	ids := keys(many(tb, 40_000))
	reg := prometheus.NewRegistry()
	r := newRegistrar(newLockTable().connect, slog.New(slog.DiscardHandler))
	h := startHub(t, HubConfig{Loader: tb, Announcer: r, Interval: time.Hour, Registerer: reg})
	go func() { _ = r.Run(t.Context()) }()
	s, err := h.Subscribe(t.Context(), ids, nil)
	testkit.NoError(t, err)
	for name, f := range map[string]func(){
		"Confirm": s.Confirm, "Resync": h.Resync, "Take": func() { s.Take() },
		"Notify": func() {
			for range 40_000 {
				h.Notify("7")
			}
		},
	} {
		start := time.Now()
		f()
		if took := time.Since(start); took > 10*time.Second { // milliseconds, on a machine that has nothing else to do and without -race
			t.Errorf("%s took %v", name, took)
		} else {
			t.Log(name, took)
		}
	}
	start := time.Now()
	s.Cancel()
	took := time.Since(start)
	if t.Log("Cancel", took); took > 10*time.Second {
		t.Errorf("Cancel took %v", took)
	}
	if n := entries(h); n > 0 {
		t.Errorf("%d entries are left", n)
	}
}
