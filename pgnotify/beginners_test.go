package pgnotify

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// finderFunc is a Finder that is not a table.
type finderFunc func(ctx context.Context, owners []store.Owner) ([]int64, error)

func (f finderFunc) Owned(ctx context.Context, owners []store.Owner) ([]int64, error) {
	return f(ctx, owners)
}

// The order again: inserts ring, then audits are found; what was found rings, then it is read.
func TestOwnedIsRegisteredBeforeItIsFoundAndRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(of("alice", running(1, 10)), of("bob", running(2, 20)))
		must := func(id int64, what string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.rows[id] == 0 {
				t.Errorf("%s before %d is registered", what, id)
			}
		}
		h := startHub(t, HubConfig{Registry: r, Interval: time.Hour,
			Finder: finderFunc(func(ctx context.Context, owners []store.Owner) ([]int64, error) {
				must(whateverBegins, "found")
				return tb.Owned(ctx, owners)
			}),
			Loader: loaderFunc(func(ctx context.Context, ids []int64) ([]*store.State, error) {
				for _, id := range ids {
					must(id, "read")
				}
				return tb.Audits(ctx, ids)
			})})
		h.Listening(7)
		wantTaken(t, subscribeOwned(t, h, alice), [2]int64{1, 10})
		r.wantRows(t, whateverBegins, 1)
		h.Listening(8)
		synctest.Wait()
		if r.rows[whateverBegins] != 8 || r.rows[1] != 8 {
			t.Errorf("rows %v, want the new session's", r.rows)
		}
	})
}

func TestOwnedIsRegisteredWhileItsStreamIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(of("alice", running(1, 10)))
		h := startHub(t, HubConfig{Registry: r, Finder: tb, Loader: tb})
		h.Listening(7)
		r.wantRows(t)
		_, first, err := h.SubscribeOwned(t.Context(), alice, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, second, err := h.SubscribeOwned(t.Context(), alice, nil)
		if err != nil {
			t.Fatal(err)
		}
		first()
		time.Sleep(time.Minute) // rounds of the safety net, and what lingers
		r.wantRows(t, whateverBegins, 1)
		r.mu.Lock()
		clear(r.rows) // uninstalled and installed again
		r.mu.Unlock()
		time.Sleep(11 * time.Second)
		r.wantRows(t, whateverBegins, 1)
		second()
		r.wantRows(t, whateverBegins, 1)
		time.Sleep(lingers)
		r.wantRows(t)
	})
}

// An insert whose trigger looked before the stream came rings nothing; when its transaction ends the owner is found again.
func TestOwnedThatBeganInAnOpenTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		r, tb := newRegistry(), newTable(of("alice", running(1, 10)))
		h := startHub(t, HubConfig{Registry: r, Finder: tb, Loader: tb, Interval: time.Hour, Registerer: reg})
		h.Listening(7)
		r.open(100, 90)
		states := subscribeOwned(t, h, alice)
		wantTaken(t, states, [2]int64{1, 10})
		time.Sleep(time.Minute)
		tb.set(of("alice", running(2, 20)))
		r.open(200)
		time.Sleep(2 * settleMax)
		wantTaken(t, states, [2]int64{2, 20})
		finds := tb.findCount()
		time.Sleep(time.Minute)
		if tb.findCount() != finds {
			t.Errorf("%d looks after all have ended, want %d", tb.findCount(), finds)
		}
		if got := metric(t, reg, "auditstream_notifications_missed_total"); got != 0 {
			t.Errorf("%v missed, want none", got)
		}
	})
}

// Whoever changes a new audit between its first read and its registration rings nothing.
func TestOwnedThatBeginsIsReadAgainAfterItsRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		r, tb := newRegistry(), newTable()
		h := startHub(t, HubConfig{Registry: r, Finder: tb, Interval: time.Hour, Registerer: reg,
			Loader: loaderFunc(func(ctx context.Context, ids []int64) ([]*store.State, error) {
				states, err := tb.Audits(ctx, ids)
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.rows[2] == 0 {
					tb.set(of("alice", running(2, 60)))
				}
				return states, err
			})})
		h.Listening(7)
		states := subscribeOwned(t, h, alice)
		tb.update(h, of("alice", running(2, 50)))
		wantTaken(t, states, [2]int64{2, 60})
		r.wantRows(t, whateverBegins, 2)
		time.Sleep(time.Minute)
		if tb.count() != 2 {
			t.Errorf("%d reads, want the first and the one after the registration", tb.count())
		}
		if got := metric(t, reg, "auditstream_notifications_missed_total"); got != 0 {
			t.Errorf("%v missed, want none", got)
		}
	})
}

// Others' new audits ring too. They cost a read, and nothing is written for them.
func TestOwnedRegistersNothingOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable()
		h := startHub(t, HubConfig{Registry: r, Finder: tb, Loader: tb, Interval: time.Hour})
		h.Listening(7)
		states := subscribeOwned(t, h, alice)
		for id := range int64(50) {
			tb.update(h, of("bob", running(id+1, 1)))
		}
		wantTaken(t, states)
		r.wantRows(t, whateverBegins)
		if len(r.registers) != 1 {
			t.Errorf("registrations: %v, want one", r.registers)
		}
	})
}

// What a load has made hot is polled for groups as for others, and forgotten when it has ended.
func TestOwnedHotAudits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, h := hotFixture(t, 0, HubConfig{})
		states := subscribeOwned(t, h, alice)
		for _, id := range seq(1, 10) {
			db.transaction(h, id, true, 0, func(row *store.Audit) { *row = of("alice", running(id, row.Progress)) })
		}
		time.Sleep(time.Second)
		mine := func(row *store.Audit) { row.Status = "running" }
		for n := range 2000 {
			db.transaction(h, int64(n%10+1), false, 0, mine)
			time.Sleep(time.Millisecond)
		}
		db.wantRegistered(t, whateverBegins)
		if rang := db.transaction(h, 3, false, 0, mine); rang {
			t.Error("a hot audit rang")
		}
		last := db.table.row(3).Progress
		time.Sleep(hotInterval)
		got := taken(t, states)
		if !slices.ContainsFunc(got, func(s *store.State) bool { return s.ID == 3 && s.Audit.Progress == last }) {
			t.Errorf("got %d states, none of audit 3 with %d", len(got), last)
		}
		for _, id := range seq(1, 10) {
			db.transaction(h, id, false, 0, func(row *store.Audit) { row.Status = "completed" })
		}
		time.Sleep(2 * hotInterval)
		if got := taken(t, states); len(got) != 10 || !got[9].Terminal() {
			t.Errorf("%d states, want the ends of all", len(got))
		}
		time.Sleep(time.Minute)
		db.wantRegistered(t, whateverBegins)
		if got := h.hotCount(); got != 0 {
			t.Errorf("%v are hot after their ends", got)
		}
	})
}

// What was found and turns out to be nobody's here, or to have ended, does not stay registered.
func TestOwnedFoundInVainIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(5, 50)) // nobody's, which the table finds for everybody
		h := startHub(t, HubConfig{Registry: r, Finder: tb, Loader: tb, Interval: time.Hour})
		h.Listening(7)
		wantTaken(t, subscribeOwned(t, h, alice))
		r.wantRows(t, whateverBegins, 5)
		time.Sleep(lingers)
		r.wantRows(t, whateverBegins)
	})
}

// After a tidying up that failed nobody knows what is registered. When it is again, what began meanwhile is found.
func TestOwnedThatBeganWhileNothingWasRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(of("alice", running(1, 10)), running(5, 50))
		h := startHub(t, HubConfig{Registry: r, Finder: tb, Loader: tb, Interval: time.Hour})
		h.Listening(7)
		states := subscribeOwned(t, h, alice)
		wantTaken(t, states, [2]int64{1, 10})
		r.failWith(errDatabase)
		time.Sleep(lingers)
		synctest.Wait()
		r.failWith(nil)
		tb.set(of("alice", running(2, 20)))
		tb.update(h, of("alice", running(1, 11)))
		if got := taken(t, states); len(got) != 2 {
			t.Errorf("%d states, want that of 1 and of 2, which rang nothing", len(got))
		}
	})
}
