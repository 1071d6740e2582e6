package pgnotify

import (
	"slices"
	"testing"
	"testing/synctest"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
)

func TestGroupIsReadAtOnceAndShownTheNewest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10), row(2, "a", 20), ended(3, "a"))
		h := startHub(t, HubConfig{Loader: tb})
		s := subscribe(t, h, 3, 1, 2, 9)
		if got := s.Take(); len(got) != 4 || tb.count() != 1 {
			t.Fatalf("%d first states of %d reads, want 4 of one", len(got), tb.count())
		}
		tb.update(h, row(2, "a", 30))
		tb.update(h, row(1, "a", 40))
		tb.update(h, row(2, "a", 50))
		if got := s.Take(); len(got) != 2 || got[0].ID != "2" || got[0].Row.Progress != 50 || got[1].Row.Progress != 40 {
			t.Errorf("%d states, want those of 2 and 1, in the order in which they changed", len(got))
		}
		tb.update(h, row(1, "a", 60)) // places of a slot that was taken are void
		wantProgress(t, s, map[int64]int{1: 60})
	})
}

func TestGroupNeverLosesATerminalState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		tb := newTable(row(1, "a", 10), row(2, "a", 20))
		h := startHub(t, HubConfig{Loader: tb, Registerer: reg})
		alone, slow, s := subscribe(t, h, 1), subscribe(t, h, 1), subscribe(t, h, 1, 2)
		for _, each := range []*Subscription{alone, slow, s} {
			each.Take()
		}
		tb.update(h, ended(1, "a"))
		wantProgress(t, alone, map[int64]int{1: 100})
		tb.update(h, row(1, "a", 1)) // begins anew, before the end was taken
		tb.update(h, row(2, "a", 30))
		wantProgress(t, s, map[int64]int{1: 100, 2: 30})
		wantProgress(t, slow, map[int64]int{1: 100})
		wantProgress(t, alone, map[int64]int{1: 1})
		tb.update(h, row(1, "a", 2))
		wantProgress(t, s, nil) // its last was shown
		alone.Cancel()
		slow.Cancel()
		if got := testkit.Metric(t, reg, "auditstream_watched_audits"); got != 1 {
			t.Errorf("%v audits watched, want 1: what has ended is not read any more", got)
		}
		if got := testkit.Metric(t, reg, "auditstream_states_coalesced_total"); got != 0 {
			t.Errorf("%v states coalesced, want none", got)
		}
	})
}

// When several streams leave at the same state of a row, each of the others still gets the state once.
func TestAllAreShownAStateAtWhichSomeLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10), row(2, "a", 10))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		var all []*Subscription
		for n := range 30 {
			switch n % 3 {
			case 0:
				all = append(all, subscribe(t, h, 1))
			case 1:
				all = append(all, subscribe(t, h, 1, 2))
			default:
				all = append(all, subscribeOwned(t, h, "a"))
			}
		}
		for _, s := range all {
			s.Take()
		}
		tb.update(h, ended(1, "a"))
		for _, s := range all {
			wantProgress(t, s, map[int64]int{1: 100})
		}
		for _, e := range h.entries {
			for s, m := range e.members {
				if m.entry != e || !slices.Contains(s.members, m) {
					t.Error("a member is not where it thinks that it is")
				}
			}
		}
		for _, s := range all {
			s.Cancel()
		}
		wantNothingLeft(t, h)
	})
}

func TestSubscriptionIsWokenForWhatItHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(row(1, "a", 10))
		h := startHub(t, HubConfig{Loader: tb, Finder: tb})
		woken := 0
		s, err := h.Subscribe(t.Context(), []store.Key{"1", "2"}, func() { woken++ })
		if err != nil || woken == 0 {
			t.Fatalf("%v, woken %d times for the first states", err, woken)
		}
		s.Take()
		woken = 0
		tb.update(h, row(2, "a", 30))
		h.Notify("2") // and nothing is new
		synctest.Wait()
		if woken != 1 {
			t.Errorf("woken %d times for a change, want once", woken)
		}
		s.Cancel()
		tb.update(h, row(2, "a", 40))
		if woken != 1 {
			t.Error("woken after Cancel")
		}
	})
}

// Confirm after Cancel, or twice, causes no Want without a Leave.
func TestConfirmIsCountedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		h, r := startWanted(t, HubConfig{Loader: tb})
		a, b := subscribe(t, h, 1), subscribe(t, h, 1)
		a.Confirm()
		a.Confirm()
		b.Confirm()
		if r.wanted["1"] != 1 {
			t.Errorf("wanted %d times, want once for both", r.wanted["1"])
		}
		a.Cancel()
		a.Confirm()
		if r.wanted["1"] != 1 {
			t.Errorf("wanted %d times, the other watches still", r.wanted["1"])
		}
		b.Cancel()
		synctest.Wait()
		if len(r.wanted) > 0 {
			t.Errorf("wanted: %v", r.wanted)
		}
	})
}
