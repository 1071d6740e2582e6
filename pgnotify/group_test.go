package pgnotify

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// subscribeMany watches several audits until the test is over.
func subscribeMany(t testing.TB, h *Hub, ids ...int64) <-chan []*store.State {
	t.Helper()
	states, cancel, err := h.SubscribeMany(t.Context(), ids, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return states
}

// taken returns what is in a group's slot once everything has come to rest, as "id:status:progress".
func taken(t testing.TB, states <-chan []*store.State) []*store.State {
	t.Helper()
	synctest.Wait()
	select {
	case s := <-states:
		return s
	default:
		return nil
	}
}

// wantTaken compares what is in the slot, by id and progress; -1 stands for no row.
func wantTaken(t testing.TB, states <-chan []*store.State, want ...[2]int64) {
	t.Helper()
	var got [][2]int64
	for _, s := range taken(t, states) {
		progress := int64(s.Audit.Progress)
		if !s.Found {
			progress = -1
		}
		got = append(got, [2]int64{s.ID, progress})
	}
	if !slices.Equal(got, want) {
		t.Errorf("in the slot: %v, want %v", got, want)
	}
}

func (tb *table) update(h *Hub, a store.Audit) {
	tb.set(a)
	h.Notify(a.ID)
	synctest.Wait()
}

func TestGroupIsReadAtOnceAndShownTheNewest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10), running(2, 20), completed(3))
		h := startHub(t, HubConfig{Loader: tb})
		states := subscribeMany(t, h, 3, 1, 2, 9)
		if got := taken(t, states); len(got) != 4 {
			t.Fatalf("%d first states, want 4", len(got))
		}
		if tb.count() != 1 {
			t.Errorf("%d reads, want one for all", tb.count())
		}
		wantTaken(t, states)
		tb.update(h, running(2, 30))
		tb.update(h, running(1, 40))
		tb.update(h, running(2, 50))
		wantTaken(t, states, [2]int64{2, 50}, [2]int64{1, 40})
		tb.update(h, running(1, 60)) // places of a slot that was taken are void
		wantTaken(t, states, [2]int64{1, 60})
		tb.drop(1)
		h.Notify(1)
		wantTaken(t, states, [2]int64{1, -1})
	})
}

func TestGroupNeverLosesATerminalState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		tb := newTable(running(1, 10), running(2, 20))
		h := startHub(t, HubConfig{Loader: tb, Registerer: reg})
		states := subscribeMany(t, h, 1, 2)
		taken(t, states)
		tb.update(h, completed(1))
		tb.update(h, running(1, 1)) // begins anew, before the end was taken
		tb.update(h, running(2, 30))
		wantTaken(t, states, [2]int64{1, 100}, [2]int64{2, 30})
		tb.update(h, running(1, 2))
		wantTaken(t, states) // its last was shown
		if got := metric(t, reg, "auditstream_watched_audits"); got != 1 {
			t.Errorf("%v audits watched, want 1: what has ended is not read any more", got)
		}
	})
}

func TestGroupSharesAuditsWithOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		tb := newTable(running(1, 10), running(2, 20))
		h := startHub(t, HubConfig{Loader: tb, Registerer: reg})
		alone := subscribe(t, h, 1)
		ctx, stop := context.WithCancel(t.Context())
		one, cancel, err := h.SubscribeMany(ctx, []int64{1, 2}, nil)
		stop() // of the call alone
		if err != nil {
			t.Fatal(err)
		}
		two := subscribeMany(t, h, 2, 1)
		next(t, alone)
		taken(t, one)
		taken(t, two)
		if got := metric(t, reg, "auditstream_watched_audits"); got != 2 {
			t.Errorf("%v audits watched, want 2", got)
		}
		tb.update(h, completed(1))
		if !next(t, alone).Terminal() {
			t.Error("the audit's own stream has not seen its end")
		}
		wantTaken(t, one, [2]int64{1, 100})
		wantTaken(t, two, [2]int64{1, 100})
		tb.update(h, running(1, 1))
		wantProgress(t, alone, 1) // which would have ended
		cancel()
		tb.update(h, running(2, 30))
		wantTaken(t, one)
		wantTaken(t, two, [2]int64{2, 30})
	})
}

func TestGroupIsWokenForWhatItHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10), running(2, 20))
		h := startHub(t, HubConfig{Loader: tb})
		woken := make(chan struct{}, 100)
		states, cancel, err := h.SubscribeMany(t.Context(), []int64{1, 2}, func() { woken <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		if len(woken) == 0 || len(taken(t, states)) != 2 {
			t.Fatalf("woken %d times for the first states", len(woken))
		}
		for len(woken) > 0 {
			<-woken
		}
		tb.update(h, running(2, 30))
		if len(woken) != 1 {
			t.Errorf("woken %d times for a change, want once", len(woken))
		}
		cancel()
		tb.update(h, running(2, 40))
		if len(woken) != 1 {
			t.Error("woken after cancel")
		}
	})
}

func TestGroupThatIsNotReadInTimeLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		tb.failWith(errDatabase)
		tb.failFindsWith(errDatabase)
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		for name, subscribe := range map[string]func(context.Context) error{
			"many":  func(ctx context.Context) error { _, _, err := h.SubscribeMany(ctx, []int64{1, 2, 3}, nil); return err },
			"owned": func(ctx context.Context) error { _, _, err := h.SubscribeOwned(ctx, alice, nil); return err },
		} {
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
			err := subscribe(ctx)
			stop()
			if !errors.Is(err, errDatabase) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v, want the deadline and the cause", name, err)
			}
		}
		tb.failWith(nil)
		tb.failFindsWith(nil)
		time.Sleep(time.Minute)
		wantNothingLeft(t, h)
	})
}

func wantNothingLeft(t testing.TB, h *Hub) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	o := &h.owners
	if n := len(h.watched) + len(h.dirty) + len(o.groups) + len(o.seeking) + len(o.sought) + len(o.suspects) + len(o.foreign); n > 0 || o.stale {
		t.Errorf("left behind: %d watched, %d dirty, %+v", len(h.watched), len(h.dirty), o)
	}
}
