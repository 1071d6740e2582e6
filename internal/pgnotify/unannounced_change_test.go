package pgnotify

import (
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
)

// missedFixture is a hub with audit 1 watched at 10 %.
type missedFixture struct {
	tb  *table
	hub *Hub
	reg *prometheus.Registry
	log *testkit.Log
	sub *Subscription
}

func newMissedFixture(t *testing.T, announcer Announcer) *missedFixture {
	t.Helper()
	f := &missedFixture{tb: newTable(row(1, "a", 10)), reg: prometheus.NewRegistry(), log: new(testkit.Log)}
	f.hub = startHub(t, HubConfig{Loader: f.tb, Finder: f.tb, Announcer: announcer, Registerer: f.reg, Logger: f.log.Logger()})
	f.sub = subscribe(t, f.hub, 1)
	f.sub.Confirm()
	f.sub.Take()
	return f
}

func (f *missedFixture) want(t *testing.T, want float64) {
	t.Helper()
	synctest.Wait()
	if got := testkit.Metric(t, f.reg, "auditstream_notifications_missed_total"); got != want {
		t.Errorf("missed %v, want %v", got, want)
	}
}

// round returns when a read has begun.
func (f *missedFixture) round() {
	for before := f.tb.count(); f.tb.count() == before; {
		time.Sleep(time.Millisecond)
	}
}

func TestUnannouncedChangeIsMissedAndLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t, nil)
		for n := range 30 {
			f.tb.set(row(1, "a", 20+n))
			f.round()
			f.want(t, float64(n)) // it may still come
		}
		time.Sleep(11 * time.Second)
		f.want(t, 30)
		if got := f.log.Count("no notification announced"); got < 4 || got > 6 {
			t.Errorf("logged %d times in 5 minutes, want about 5:\n%s", got, f.log)
		}
	})
}

func TestLateNotificationIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t, nil)
		f.tb.set(row(1, "a", 20))
		f.round()
		time.Sleep(announceGrace - 10*time.Millisecond)
		f.hub.Notify("1")
		time.Sleep(time.Minute)
		f.want(t, 0)
	})
}

// A read of the safety net saw a change whose notification came before the read returned. It was counted as missed, and the log told
// operators to look for a lost trigger.
func TestNotificationDuringTheReadThatSawItsChangeIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t, nil)
		f.tb.setTakes(100 * time.Millisecond)
		f.tb.set(row(1, "a", 20))
		f.round() // the read has looked and is on its way back
		f.hub.Notify("1")
		time.Sleep(time.Minute)
		f.want(t, 0)
		wantProgress(t, f.sub, map[int64]int{1: 20})
	})
}

// After a failed read, the hub still knows that a notification has come, and that a change is excused.
func TestChangeAfterAFailedReadIsNotMissed(t *testing.T) {
	t.Parallel()
	for name, announce := range map[string]func(h *Hub){
		"notification": func(h *Hub) { h.Notify("1") },
		"resync":       (*Hub).Resync,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newMissedFixture(t, nil)
			f.tb.failWith(errDatabase)
			f.tb.set(row(1, "a", 20))
			first := time.Now()
			announce(f.hub)
			time.Sleep(30 * time.Second)
			if name == "notification" {
				announce(f.hub)
			}
			f.tb.failWith(nil)
			time.Sleep(time.Minute)
			f.want(t, 0)
			got := f.sub.Take()
			if len(got) != 1 || got[0].Row.Progress != 20 {
				t.Fatalf("%s: %d states, want the change", name, len(got))
			}
			if noticed := got[0].Noticed; name == "notification" && !noticed.Equal(first) || name == "resync" && !noticed.IsZero() {
				t.Errorf("%s: noticed %v, want the first notification", name, noticed)
			}
		})
	}
}

// A new stream began with the state of a read for an earlier stream. A change in between, whose notification came while nobody watched, was
// counted as missed.
func TestChangeWhileNobodyWatchedIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t, nil)
		f.tb.setTakes(100 * time.Millisecond)
		f.hub.Notify("1")
		time.Sleep(10 * time.Millisecond) // a read has looked and is on its way back
		f.sub.Cancel()
		f.tb.set(row(1, "a", 20))
		f.hub.Notify("1")
		s := subscribe(t, f.hub, 1)
		s.Confirm()
		wantProgress(t, s, map[int64]int{1: 20})
		time.Sleep(time.Minute)
		f.want(t, 0)
	})
}

// A change that is found by a search, or after a lock was acquired, need not have been announced. Nor need a change during a flood or
// without a lock.
func TestChangeThatNobodyHadToAnnounceIsNotMissed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, f *missedFixture){
		"resync":      func(_ *testing.T, f *missedFixture) { f.hub.Resync() },
		"lock":        func(_ *testing.T, f *missedFixture) { f.hub.Mark(func(key store.Key) bool { return key == "1" }) },
		"find":        func(t *testing.T, f *missedFixture) { subscribeOwned(t, f.hub, "a") },
		"unconfirmed": func(*testing.T, *missedFixture) {},
		"flood":       func(_ *testing.T, f *missedFixture) { f.hub.pace.flood.Store(true) },
		"not held":    func(*testing.T, *missedFixture) {},
	} {
		t.Run(name, testkit.Bubble(func(t *testing.T) {
			var announcer Announcer
			if name == "not held" {
				announcer = newCountingAnnouncer()
			}
			f := newMissedFixture(t, announcer)
			switch name {
			case "unconfirmed":
				subscribe(t, f.hub, 1)
				f.sub.Cancel()
			case "not held":
				time.Sleep(time.Minute) // what is read when the lock was asked for is over
			}
			f.tb.set(row(1, "a", 20))
			change(t, f)
			time.Sleep(time.Minute)
			f.want(t, 0)
		}))
	}
}
