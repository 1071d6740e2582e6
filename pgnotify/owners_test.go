package pgnotify

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"
)

var alice = store.Viewer{Subject: "alice", Email: "Alice@example.com"}

// Owned finds by owner as the database does, with a stranger's audit among them: it may find too many.
func (tb *table) Owned(ctx context.Context, owners []store.Owner) ([]int64, error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.finds++
	if tb.findFail != nil {
		return nil, tb.findFail
	}
	var ids []int64
	for id, row := range tb.rows {
		if !row.Terminal() && (slices.Contains(owners, row.Owner()) || row.Owner() == store.Owner{}) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (tb *table) failFindsWith(err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.findFail = err
}

func (tb *table) findCount() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.finds
}

func of(owner string, a store.Audit) store.Audit {
	a.UserID = &owner
	return a
}

func subscribeOwned(t testing.TB, h *Hub, viewer store.Viewer) <-chan []*store.State {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	states, cancel, err := h.SubscribeOwned(ctx, viewer, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return states
}

func TestOwnedIsWhatTheOwnerHasAndWhatBeginsLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mail := "aLICE@example.com"
		byMail := running(2, 20)
		byMail.UserEmail = &mail
		tb := newTable(of("alice", running(1, 10)), byMail, of("bob", running(3, 30)), of("alice", completed(4)), running(5, 50))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		states := subscribeOwned(t, h, alice)
		first := taken(t, states)
		slices.SortFunc(first, func(a, b *store.State) int { return int(a.ID - b.ID) })
		if len(first) != 2 || first[0].ID != 1 || first[1].ID != 2 {
			t.Fatalf("at first %v, want the audits 1 and 2", first)
		}
		tb.update(h, of("alice", running(6, 1)))
		wantTaken(t, states, [2]int64{6, 1})
		tb.update(h, of("alice", running(6, 2)))
		tb.update(h, of("bob", running(7, 2)))
		tb.update(h, of("bob", running(3, 31)))
		wantTaken(t, states, [2]int64{6, 2})
		tb.update(h, of("alice", completed(6)))
		wantTaken(t, states, [2]int64{6, 100})
		tb.update(h, of("alice", running(6, 3))) // once more
		wantTaken(t, states, [2]int64{6, 3})
	})
}

func TestOwnedMayBeNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		states := subscribeOwned(t, h, alice)
		nobodys := subscribeOwned(t, h, store.Viewer{})
		wantTaken(t, states)
		tb.update(h, of("alice", running(1, 1)))
		tb.update(h, running(2, 1))
		wantTaken(t, states, [2]int64{1, 1})
		wantTaken(t, nobodys)
	})
}

// What left the owner is told once, by the state that says so; what comes to the owner is found at the latest by the safety net.
func TestOwnedFollowsTheOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(of("alice", running(1, 10)), of("alice", running(2, 20)))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		states := subscribeOwned(t, h, alice)
		taken(t, states)
		tb.update(h, of("bob", running(1, 11)))
		if got := taken(t, states); len(got) != 1 || *got[0].Audit.UserID != "bob" {
			t.Fatalf("got %v, want the state with another owner", got)
		}
		tb.update(h, of("bob", running(1, 12)))
		tb.drop(2)
		h.Notify(2)
		wantTaken(t, states, [2]int64{2, -1})
		tb.update(h, of("alice", running(2, 21)))
		wantTaken(t, states, [2]int64{2, 21})
		tb.update(h, of("alice", running(1, 13)))
		time.Sleep(11 * time.Second)
		wantTaken(t, states, [2]int64{1, 13})
	})
}

func TestOwnedIsFoundWithoutNotifications(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		states := subscribeOwned(t, h, alice)
		tb.set(of("alice", running(1, 1)))
		wantTaken(t, states)
		time.Sleep(11 * time.Second)
		wantTaken(t, states, [2]int64{1, 1})
		tb.set(of("alice", running(2, 1)))
		h.Resync()
		wantTaken(t, states, [2]int64{2, 1})
	})
}

// Others' audits are read once between two looks at what the owners have, however often they change.
func TestOwnedDoesNotReadOthersAuditsAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		subscribeOwned(t, h, alice)
		for progress := range 50 {
			tb.update(h, of("bob", running(1, progress)))
		}
		if tb.count() != 1 {
			t.Errorf("%d reads, want 1", tb.count())
		}
		h.Resync()
		synctest.Wait()
		tb.update(h, of("alice", running(1, 60)))
		if tb.count() != 2 {
			t.Errorf("%d reads, want another after a look", tb.count())
		}
	})
}

// A bulk write of others' audits does not make reads that the database cannot bear.
func TestOwnedReadsABulkWriteInBites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		states := subscribeOwned(t, h, alice)
		tb.setTakes(time.Second)
		tb.update(h, of("alice", running(1, 1))) // a read is under way
		for id := range int64(3 * maxSuspects) {
			h.Notify(id + 10)
		}
		tb.set(of("alice", running(2, 1)))
		h.Notify(1)
		time.Sleep(time.Minute)
		if tb.count() != 1+maxSuspects/maxSuspectsRead {
			t.Errorf("%d reads, want %d", tb.count(), 1+maxSuspects/maxSuspectsRead)
		}
		for _, read := range tb.reads {
			if len(read) > maxSuspectsRead+1 {
				t.Errorf("a read of %d audits", len(read))
			}
		}
		h.Resync()
		time.Sleep(time.Minute)
		if got := taken(t, states); len(got) != 2 {
			t.Errorf("%d states, want 2: what was too much is found later", len(got))
		}
		if tb.setTakes(0); tb.findCount() != 2 {
			t.Errorf("%d looks, want 2", tb.findCount())
		}
	})
}

// A view whose owners cannot be asked for does not stop the streams of single audits.
func TestOwnedThatCannotBeFoundDisturbsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(of("alice", running(1, 10)))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		states := subscribeOwned(t, h, alice)
		alone := subscribe(t, h, 1)
		taken(t, states)
		next(t, alone)
		tb.failFindsWith(errDatabase)
		time.Sleep(30 * time.Second)
		start := time.Now()
		tb.update(h, of("alice", running(1, 20)))
		wantProgress(t, alone, 20)
		wantTaken(t, states, [2]int64{1, 20})
		if late := time.Since(start); late > 0 {
			t.Errorf("%v late", late)
		}
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		if _, _, err := h.SubscribeOwned(ctx, alice, nil); !errors.Is(err, errDatabase) {
			t.Errorf("error %v, want the cause", err)
		}
	})
}

// The read that follows a look may fail: what was found is found again.
func TestOwnedIsReadWhenReadsWorkAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(of("alice", running(1, 10)))
		tb.failWith(errDatabase)
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		time.AfterFunc(3*time.Second, func() { tb.failWith(nil) })
		wantTaken(t, subscribeOwned(t, h, alice), [2]int64{1, 10})
	})
}

// The slot is empty for a moment while it is looked into; who found it so is woken.
func TestOwnedWakesWhoMayHaveMissedTheSlot(t *testing.T) {
	t.Parallel()
	woken := 0
	g := newGroup(func() { woken++ })
	g.slot <- []*store.State{store.NewState(completed(1))}
	g.places[1] = 0
	if !g.holdsEnd(1) || g.holdsEnd(2) || woken != 2 {
		t.Errorf("woken %d times, want 2", woken)
	}
}

// A crowd of dashboards, as after a restart, makes one look and one read.
func TestOwnedCrowdSharesALook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(of("alice", running(1, 10)))
		tb.setTakes(10 * time.Millisecond) // in which the others come
		h := startHub(t, HubConfig{Loader: tb, Finder: tb, Interval: time.Hour})
		done := make(chan func(), 100)
		for range cap(done) {
			go func() {
				_, cancel, err := h.SubscribeOwned(t.Context(), alice, nil)
				if err != nil {
					t.Error(err)
				}
				done <- cancel
			}()
		}
		for range cap(done) {
			(<-done)()
		}
		if tb.findCount() > 2 || tb.count() > 2 {
			t.Errorf("%d looks and %d reads for a crowd", tb.findCount(), tb.count())
		}
		wantNothingLeft(t, h)
	})
}

func TestOwnedNeedsAFinder(t *testing.T) {
	t.Parallel()
	h := startHub(t, HubConfig{Loader: newTable()})
	if _, _, err := h.SubscribeOwned(t.Context(), alice, nil); err == nil {
		t.Error("no error")
	}
}
