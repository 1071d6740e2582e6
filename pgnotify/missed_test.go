package pgnotify

import (
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

// missedFixture is a hub with audit 1 watched at 10 %.
type missedFixture struct {
	tb     *table
	hub    *Hub
	reg    *prometheus.Registry
	log    *logs
	states <-chan *store.State
}

func newMissedFixture(t *testing.T) *missedFixture {
	t.Helper()
	f := &missedFixture{tb: newTable(running(1, 10)), reg: prometheus.NewRegistry(), log: new(logs)}
	f.hub = startHub(t, HubConfig{Loader: f.tb, Interval: 10 * time.Second, Registerer: f.reg, Logger: f.log.logger()})
	f.states = subscribe(t, f.hub, 1)
	wantProgress(t, f.states, 10)
	return f
}

func (f *missedFixture) want(t *testing.T, want float64) {
	t.Helper()
	synctest.Wait()
	if got := metric(t, f.reg, "auditstream_notifications_missed_total"); got != want {
		t.Errorf("missed %v, want %v", got, want)
	}
}

func TestUnannouncedChangeIsCountedAfterItsGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.set(running(1, 20))
		<-tick(f)
		f.want(t, 0)
		time.Sleep(announceGrace)
		f.want(t, 1)
		if got := f.log.count("no notification announced"); got != 1 {
			t.Errorf("logged %d times, want once:\n%s", got, f.log)
		}
	})
}

// tick is closed when the safety net has read.
func tick(f *missedFixture) <-chan struct{} {
	done, before := make(chan struct{}), f.tb.count()
	go func() {
		defer close(done)
		for f.tb.count() == before {
			time.Sleep(time.Millisecond)
		}
	}()
	return done
}

func TestLateNotificationIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.set(running(1, 20))
		<-tick(f)
		time.Sleep(announceGrace - 10*time.Millisecond)
		f.hub.Notify(1)
		time.Sleep(time.Minute)
		f.want(t, 0)
	})
}

func TestAnnouncedChangeIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.set(running(1, 20))
		f.hub.Notify(1)
		time.Sleep(time.Minute)
		f.want(t, 0)
		wantProgress(t, f.states, 20)
	})
}

func TestAnnouncedChangeAfterAFailedReadIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.failWith(errDatabase)
		f.tb.set(running(1, 20))
		f.hub.Notify(1)
		time.Sleep(30 * time.Second)
		f.tb.failWith(nil)
		time.Sleep(time.Minute)
		f.want(t, 0)
	})
}

// The read of the safety net had seen the change, and its notification came before the read returned: it was counted as
// missed, and operators were told to look for a lost trigger.
func TestNotificationDuringTheReadThatSawItsChangeIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.takes = 100 * time.Millisecond
		f.tb.set(running(1, 20))
		<-tick(f) // the read has looked and is on its way back
		f.hub.Notify(1)
		time.Sleep(time.Minute)
		f.want(t, 0)
		wantProgress(t, f.states, 20)
	})
}

// A read for a stream that has gone was taken as the starting point of a new one, and a change in between, whose
// notification came when nobody watched, was counted as missed.
func TestChangeWhileNobodyWatchedIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb, reg := newTable(running(1, 10)), prometheus.NewRegistry()
		h := startHub(t, HubConfig{Loader: tb, Registerer: reg})
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		tb.takes = 100 * time.Millisecond
		h.Notify(1)
		time.Sleep(10 * time.Millisecond) // a read has looked and is on its way back
		cancel()
		tb.set(running(1, 20))
		h.Notify(1)
		wantProgress(t, subscribe(t, h, 1), 20)
		time.Sleep(time.Minute)
		if got := metric(t, reg, "auditstream_notifications_missed_total"); got != 0 {
			t.Errorf("missed %v, want 0", got)
		}
	})
}

func TestChangeFoundByAResyncIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.set(running(1, 20))
		f.hub.Resync()
		time.Sleep(time.Minute)
		f.want(t, 0)
		wantProgress(t, f.states, 20)
	})
}

// Writers that looked before the registration ring nothing when they commit, so as long as one was open no change counted: a
// batch that took hours hid for hours that a trigger was missing.
func TestMissingTriggerIsNoticedBesideALongTransaction(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(r *registry)
		want      float64
	}{
		"it goes on":   {func(*registry) {}, 1},
		"it has ended": {func(r *registry) { r.open(200, 150) }, 0}, // the change may be its own
		"another has":  {func(r *registry) { r.open(200, 90) }, 1},
		"it has ended, which is seen later": {func(r *registry) {
			r.open(200, 150)
			r.failWith(errDatabase)
			time.AfterFunc(10*time.Second, func() { r.failWith(nil) })
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRegistry()
				f := &missedFixture{tb: newTable(running(1, 10)), reg: prometheus.NewRegistry(), log: new(logs)}
				f.hub = startHub(t, HubConfig{Loader: f.tb, Registry: r, Interval: settleMax / 5, Registerer: f.reg, Logger: f.log.logger()})
				f.hub.Listening(7)
				r.open(100, 90)
				f.states = subscribe(t, f.hub, 1)
				wantProgress(t, f.states, 10)
				time.Sleep(10*time.Second + settleMax/2) // looks are rare by now
				r.open(110, 90, 105)
				time.Sleep(2 * settleMax)
				tt.meanwhile(r)
				f.tb.set(running(1, 20))
				<-tick(f)
				wantProgress(t, f.states, 20)
				time.Sleep(time.Minute)
				f.want(t, tt.want)
			})
		})
	}
}

func TestMissedChangesAreLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		for i := range 30 {
			f.tb.set(running(1, 20+i))
			<-tick(f)
		}
		time.Sleep(5 * time.Second)
		f.want(t, 30)
		if got := f.log.count("no notification announced"); got < 4 || got > 6 {
			t.Errorf("logged %d times in 5 minutes, want about 5:\n%s", got, f.log)
		}
	})
}

func TestNoticedIsTheFirstNotificationOfAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newMissedFixture(t)
		f.tb.failWith(errDatabase)
		f.tb.set(running(1, 20))
		first := time.Now()
		f.hub.Notify(1)
		time.Sleep(3 * time.Second)
		f.hub.Notify(1)
		f.tb.failWith(nil)
		time.Sleep(time.Second)
		if got := next(t, f.states).Noticed; !got.Equal(first) {
			t.Errorf("noticed %v after the first notification, want that one", got.Sub(first))
		}
		f.tb.set(running(1, 30))
		f.hub.Resync()
		if got := next(t, f.states).Noticed; !got.IsZero() {
			t.Errorf("noticed %v, want zero: no notification announced it", got)
		}
	})
}
