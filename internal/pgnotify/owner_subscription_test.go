package pgnotify

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"context"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

func subscribeOwned(t *testing.T, h *Hub, user string) *Subscription {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	s, err := h.SubscribeOwned(ctx, store.Viewer{Subject: user}, nil)
	if err != nil {
		t.Error(err) // not Fatal: some subscribe in goroutines of their own
	}
	return s
}

func (tb *table) update(h *Hub, a store.Row) {
	tb.set(a)
	h.Notify(a.ID)
	synctest.Wait()
}

func TestOwnedIsWhatTheOwnerHasAndWhatBeginsLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		mail := "aLICE@example.com"
		tb.set(row(1, "alice", 10))
		tb.set(store.Row{ID: "2", Status: "running", Progress: 20, UserEmail: &mail})
		tb.set(row(3, "bob", 30))
		tb.set(ended(4, "alice"))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		s, err := h.SubscribeOwned(t.Context(), store.Viewer{Subject: "alice", Email: "Alice@example.com"}, nil)
		testkit.NoError(t, err)
		nobodys := subscribeOwned(t, h, "")
		wantProgress(t, s, map[int64]int{1: 10, 2: 20})
		tb.update(h, row(6, "alice", 1))
		wantProgress(t, s, map[int64]int{6: 1})
		tb.update(h, row(6, "alice", 2))
		tb.update(h, row(7, "bob", 2))
		tb.update(h, row(3, "bob", 31))
		wantProgress(t, s, map[int64]int{6: 2})
		tb.update(h, ended(6, "alice"))
		tb.update(h, row(6, "alice", 3)) // before the end was taken
		wantProgress(t, s, map[int64]int{6: 100})
		tb.update(h, row(6, "alice", 4))
		wantProgress(t, s, map[int64]int{6: 4})
		tb.drop(6)
		h.Notify("6")
		synctest.Wait()
		if got := s.Take(); len(got) != 1 || got[0].Found {
			t.Errorf("got %+v, want that it is gone", got)
		}
		wantProgress(t, nobodys, nil)
		s.Cancel()
		nobodys.Cancel()
		wantNothingLeft(t, h)
	})
}

// A row that changed its owner, between two users who each watch all of theirs, was shown to the new owner once and then forgotten: no round
// read it.
func TestAuditThatPassesToAnotherOwnerIsWatchedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "alice", 10))
		h, r := startWanted(t, HubConfig{Loader: tb, Finder: tb})
		alice, bob := subscribeOwned(t, h, "alice"), subscribeOwned(t, h, "bob")
		wantProgress(t, alice, map[int64]int{1: 10})
		tb.update(h, row(1, "bob", 20))
		wantProgress(t, alice, map[int64]int{1: 20}) // which says so
		wantProgress(t, bob, map[int64]int{1: 20})
		if h.entries["1"] == nil || r.wanted["1"] != 1 {
			t.Errorf("entry %v, wanted %d times", h.entries["1"], r.wanted["1"])
		}
		tb.failFindsWith(errDatabase)
		tb.set(row(1, "bob", 30))
		time.Sleep(11 * time.Second)
		wantProgress(t, bob, map[int64]int{1: 30})
		alice.Cancel()
		bob.Cancel()
		wantNothingLeft(t, h)
		if len(r.wanted) > 0 {
			t.Errorf("wanted after all have left: %v", r.wanted)
		}
	})
}

// New rows are announced to every instance: a bulk insert of other users' rows neither delays watched rows nor fills the memory, and the
// Finder finds those that were too many.
func TestBulkInsertDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		s := subscribeOwned(t, h, "b")
		one := subscribe(t, h, 7)
		one.Take()
		tb.setPerKey(20 * time.Microsecond)
		many(tb, 20_000)
		tb.set(row(20_001, "b", 5))
		for id := range int64(20_001) {
			h.Notify(store.IntKey(id + 1))
			if id%5000 == 0 {
				if late := delayOf(tb, h, one, 7, int(id)+2); late > 21*time.Millisecond {
					t.Fatalf("a change waited %v", late)
				}
			}
		}
		h.mu.Lock()
		if n := len(h.entries); n > maxUnwatched+maxRead {
			t.Errorf("%d entries", n)
		}
		h.mu.Unlock()
		time.Sleep(10 * time.Second)
		wantProgress(t, s, map[int64]int{20_001: 5})
		s.Cancel()
		one.Cancel()
		wantNothingLeft(t, h)
	})
}

// A row that may be new and changes during its read is read again: the first read may not have seen the change.
func TestWhatMayHaveBegunIsReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		s := subscribeOwned(t, h, "a")
		tb.setTakes(100 * time.Millisecond)
		tb.set(row(1, "b", 10))
		h.Notify("1")
		time.Sleep(50 * time.Millisecond) // the read has looked
		tb.set(row(1, "a", 20))
		h.Notify("1")
		time.Sleep(time.Second)
		wantProgress(t, s, map[int64]int{1: 20})
	})
}

// A row that may be new is forgotten when nobody watches all rows of an owner any more.
func TestWhatMayHaveBegunIsForgotten(t *testing.T) {
	t.Parallel()
	for _, fail := range []error{nil, errDatabase} {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable()
			h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
			s := subscribeOwned(t, h, "a")
			tb.setTakes(100 * time.Millisecond)
			tb.failWith(fail)
			h.Notify("1")
			time.Sleep(50 * time.Millisecond)
			h.Notify("1")
			h.Notify("2")
			s.Cancel()
			time.Sleep(time.Minute)
			tb.failWith(nil)
			wantNothingLeft(t, h)
		})
	}
}

// A failed search for owners' rows does not stop other streams, and is retried.
func TestOwnedThatCannotBeFoundDisturbsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		tb := newTable(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Logger: log.Logger()})
		s, alone := subscribeOwned(t, h, "a"), subscribe(t, h, 1)
		s.Take()
		alone.Take()
		tb.failFindsWith(errDatabase)
		time.Sleep(30 * time.Second)
		tb.update(h, row(1, "a", 20))
		wantProgress(t, alone, map[int64]int{1: 20})
		wantProgress(t, s, map[int64]int{1: 20})
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		if _, err := h.SubscribeOwned(ctx, store.Viewer{Subject: "a"}, nil); !errors.Is(err, errDatabase) {
			t.Errorf("error %v, want the cause", err)
		}
		tb.failFindsWith(nil)
		tb.set(row(2, "a", 1))
		time.Sleep(11 * time.Second)
		wantProgress(t, s, map[int64]int{2: 1})
		if n := log.Count("for the audits of users who watch all of theirs failed"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, &log)
		}
	})
}

// The rows that a search has found are read when reads work again.
func TestOwnedIsReadWhenReadsWorkAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb, Finder: finderFunc(func(context.Context, []store.Owner) ([]store.Key, []store.Owner, error) {
			return []store.Key{"1", "1", "9"}, nil, nil
		}), Interval: time.Hour})
		tb.failWith(errDatabase)
		time.AfterFunc(3*time.Second, func() { tb.failWith(nil) })
		s := subscribeOwned(t, h, "a")
		wantProgress(t, s, map[int64]int{1: 10}) // what was found twice is there once, what is not there is not
		s.Cancel()
		wantNothingLeft(t, h)
	})
}

type finderFunc func(ctx context.Context, owners []store.Owner) ([]store.Key, []store.Owner, error)

func (f finderFunc) Owned(ctx context.Context, owners []store.Owner) ([]store.Key, []store.Owner, error) {
	return f(ctx, owners)
}

// Many dashboards that connect at once, as after a restart, cause few searches and reads. A slow search is followed by an equal pause.
func TestOwnedCrowdSharesFinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
		tb.setTakes(10 * time.Millisecond)
		finds := 0
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Hour, Finder: finderFunc(func(ctx context.Context, owners []store.Owner) ([]store.Key, []store.Owner, error) {
			finds++
			time.Sleep(time.Second)
			return tb.Owned(ctx, owners)
		})})
		all := make(chan *Subscription, 100)
		start := time.Now()
		for range cap(all) {
			go func() { all <- subscribeOwned(t, h, "a") }()
			time.Sleep(10 * time.Millisecond)
		}
		for range cap(all) {
			(<-all).Cancel()
		}
		if took := time.Since(start); finds > 2 || tb.count() > 3 || took < 3*time.Second || took > 4*time.Second {
			t.Errorf("%d finds and %d reads for a crowd within %v, want a second of rest between two finds", finds, tb.count(), took)
		}
		wantNothingLeft(t, h)
	})
}

// NewRows is wanted while somebody watches all rows of an owner, and each row of theirs while it is watched.
func TestOwnedIsWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
		h, r := startWanted(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		want := func(want ...store.Key) {
			t.Helper()
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			var got []store.Key
			for key, n := range r.wanted {
				if got = append(got, key); n != 1 {
					t.Errorf("%q is wanted %d times", key, n)
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("wanted %q, want %q", got, want)
			}
		}
		one, two := subscribeOwned(t, h, "a"), subscribeOwned(t, h, "a")
		want("", "1")
		one.Cancel()
		tb.update(h, row(2, "a", 1))
		want("", "1", "2")
		tb.update(h, ended(1, "a"))
		want("", "2")
		finds := tb.findCount()
		h.Mark(func(key store.Key) bool { return key == NewRows })
		synctest.Wait()
		if tb.findCount() != finds+1 {
			t.Error("what began before it was announced is not looked for")
		}
		two.Cancel()
		want()
		finds = tb.findCount()
		h.Mark(func(store.Key) bool { return true })
		synctest.Wait()
		if tb.findCount() != finds {
			t.Error("something is looked for with nobody to care")
		}
	})
}

func TestOwnedNeedsAFinder(t *testing.T) {
	t.Parallel()
	h := newHub(t, HubConfig{Loader: newTable()})
	if _, err := h.SubscribeOwned(t.Context(), store.Viewer{Subject: "a"}, nil); err == nil {
		t.Error("no error")
	}
}

// When somebody asked for a new row and left during its read, those who watch all rows of the owner missed it.
func TestBeginningIsNotForgottenDuringItsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		s := subscribeOwned(t, h, "alice")
		tb.setTakes(30 * time.Millisecond)
		tb.set(row(1, "alice", 10))
		h.Notify("1")
		ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		if _, err := h.Subscribe(ctx, []store.Key{"1"}, nil); err == nil {
			t.Fatal("the read was over too early")
		}
		time.Sleep(time.Second)
		wantProgress(t, s, map[int64]int{1: 10})
		s.Cancel()
		wantNothingLeft(t, h)
	})
}
