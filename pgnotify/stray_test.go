package pgnotify

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A registration that could not be taken back rang for nobody until the session ended.
func TestWhatCouldNotBeUnregisteredIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		h := startHub(t, HubConfig{Loader: newTable(running(1, 1), running(2, 2)), Registry: r})
		h.Listening(7)
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		subscribe(t, h, 2)
		cancel()
		r.failWith(errDatabase)
		time.Sleep(lingers + time.Second)
		r.wantRows(t, 1, 2)
		r.failWith(nil)
		time.Sleep(time.Minute)
		r.wantRows(t, 2)
	})
}

// halfRegistered registers and then says that it has failed, as when the query for the snapshot does.
type halfRegistered struct {
	*registry
	failing bool
}

func (r *halfRegistered) Register(ctx context.Context, instance int64, ids []int64) (Snapshot, error) {
	snap, err := r.registry.Register(ctx, instance, ids)
	if r.failing {
		return Snapshot{}, errDatabase
	}
	return snap, err
}

func TestWhatMayBeRegisteredIsUnregistered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &halfRegistered{registry: newRegistry(), failing: true}
		h := startHub(t, HubConfig{Loader: newTable(running(1, 1)), Registry: r})
		h.Listening(7)
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.wantRows(t, 1)
		cancel()
		time.Sleep(time.Minute)
		r.wantRows(t)
	})
}

// Listener and hub are stopped at once. Was the listener quicker, the triggers rang on for an instance that was gone.
func TestStoppedHubUnregistersAlsoAfterItsListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		h, err := NewHub(HubConfig{Loader: newTable(running(1, 1)), Registry: r})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = h.Run(ctx) }()
		h.Listening(7)
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer cancel()
		r.wantRows(t, 1)
		h.Listening(0)
		stop()
		<-done
		r.wantRows(t)
	})
}

// watchedOnce is a fixture with a registry.
func watchedOnce(t *testing.T, r *registry) *missedFixture {
	t.Helper()
	f := &missedFixture{tb: newTable(running(1, 10)), reg: prometheus.NewRegistry(), log: new(logs)}
	f.hub = startHub(t, HubConfig{Loader: f.tb, Registry: r, Interval: 10 * time.Second, Registerer: f.reg, Logger: f.log.logger()})
	f.hub.Listening(7)
	return f
}

// What was not registered when it changed had to ring nothing.
func TestChangeBeforeALateRegistrationIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		f := watchedOnce(t, r)
		r.failWith(errDatabase)
		f.states = subscribe(t, f.hub, 1)
		r.failWith(nil)
		wantProgress(t, f.states, 10)
		f.tb.set(running(1, 20))
		<-tick(f)
		wantProgress(t, f.states, 20)
		time.Sleep(time.Minute)
		f.want(t, 0)
		f.tb.set(running(1, 30)) // it is registered now
		<-tick(f)
		wantProgress(t, f.states, 30)
		time.Sleep(time.Minute)
		f.want(t, 1)
	})
}

// A read that comes before the listener is back finds what no notification could announce.
func TestChangeFoundWhileTheListenerReconnectsIsNotMissed(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*testing.T, *missedFixture){
		"by the safety net":     func(_ *testing.T, f *missedFixture) { <-tick(f) },
		"for the second viewer": func(t *testing.T, f *missedFixture) { subscribe(t, f.hub, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newMissedFixture(t)
				f.tb.set(running(1, 20))
				read(t, f)
				time.Sleep(100 * time.Millisecond)
				f.hub.Resync()
				time.Sleep(time.Minute)
				f.want(t, 0)
			})
		})
	}
}

// A look that fails tells nothing, also not that doubts are settled.
func TestFailedLookSettlesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		f := watchedOnce(t, r)
		r.open(100, 90)
		states, cancel, err := f.hub.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantProgress(t, states, 10)
		time.Sleep(12 * time.Second)
		r.failWith(errDatabase)
		f.tb.set(completed(1)) // by transaction 90, which had to ring nothing
		r.open(200, 150)
		<-tick(f)
		wantProgress(t, states, 100)
		cancel()
		time.Sleep(20 * time.Second)
		r.failWith(nil)
		time.Sleep(time.Minute)
		f.want(t, 0)
	})
}

// Behind an address may be another cluster from one moment to the next, in which transactions have lower ids: those of before
// were waited for for ever.
func TestLooksEndInAnotherCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		h := startHub(t, HubConfig{Loader: newTable(running(1, 1)), Registry: r})
		h.Listening(7)
		r.open(1_000_000, 999_990)
		subscribe(t, h, 1)
		time.Sleep(10 * time.Second)
		r.open(100)
		h.Listening(0)
		h.Listening(8)
		time.Sleep(10 * time.Second)
		r.mu.Lock()
		before := r.looks
		r.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.looks != before {
			t.Errorf("%d looks in an hour in which no transaction was open, want none", r.looks-before)
		}
	})
}
