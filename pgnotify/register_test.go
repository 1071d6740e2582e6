package pgnotify

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"
)

// registry is auditstream.watch, and the transactions of a database, as a hub sees them.
type registry struct {
	mu        sync.Mutex
	rows      map[int64]int64 // by audit, the instance
	registers [][]int64       // the ids of each registration, sorted
	looks     int
	snapshot  Snapshot
	fail      error
}

func newRegistry() *registry { return &registry{rows: make(map[int64]int64)} }

func (r *registry) Register(_ context.Context, instance int64, ids []int64) (Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.registers = append(r.registers, slices.Sorted(slices.Values(ids)))
	if r.fail != nil {
		return Snapshot{}, r.fail
	}
	for _, id := range ids {
		r.rows[id] = instance
	}
	r.looks++
	return r.snapshot, nil
}

func (r *registry) Unregister(_ context.Context, _ int64, ids []int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return 0, r.fail
	}
	if ids == nil {
		clear(r.rows)
	}
	for _, id := range ids {
		delete(r.rows, id)
	}
	return len(r.rows), nil
}

func (r *registry) Snapshot(context.Context) (Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks++
	return r.snapshot, r.fail
}

// open says which transactions are in progress below xmax.
func (r *registry) open(xmax uint64, xids ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshot = Snapshot{Xmax: xmax, InProgress: xids}
}

func (r *registry) failWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

func (r *registry) wantRows(t testing.TB, want ...int64) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := slices.Sorted(maps.Keys(r.rows)); !slices.Equal(got, want) {
		t.Errorf("registered: %v, want %v", got, want)
	}
}

func TestRegisteredBeforeTheFirstRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Registry: r})
		subscribe(t, h, 1)
		r.wantRows(t) // nobody listens: nothing could be heard
		h.Listening(7)
		r.wantRows(t, 1)
		reads := tb.count()
		if reads != 2 {
			t.Errorf("%d reads, want the first and the one after the registration", reads)
		}
		subscribe(t, h, 2)
		r.wantRows(t, 1, 2)
		if len(r.registers) != 2 {
			t.Errorf("registrations: %v, want each audit once", r.registers)
		}
		h.Listening(8) // a new session: the rows of the other are its own
		synctest.Wait()
		if got := r.registers[len(r.registers)-1]; !slices.Equal(got, []int64{1, 2}) {
			t.Errorf("the new session registered %v, want all that is watched", got)
		}
		if r.rows[1] != 8 || r.rows[2] != 8 {
			t.Errorf("rows %v, want the new session's", r.rows)
		}
	})
}

// The order is what the whole thing rests on: register, commit, read.
func TestReadFollowsRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		h := startHub(t, HubConfig{Registry: r, Loader: loaderFunc(func(ctx context.Context, ids []int64) ([]*store.State, error) {
			r.mu.Lock()
			for _, id := range ids {
				if r.rows[id] == 0 {
					t.Errorf("audit %d is read before it is registered", id)
				}
			}
			r.mu.Unlock()
			return tb.Audits(ctx, ids)
		})})
		h.Listening(7)
		subscribe(t, h, 1)
	})
}

// A writer that looked before the registration commits after the first read and rings nothing.
func TestWriterThatLookedTooEarlyIsReadAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: time.Hour})
		h.Listening(7)
		r.open(100, 90, 95)
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := tb.count(); got != 1 {
			t.Errorf("%d reads while nothing has ended, want 1", got)
		}
		if r.looks > 70 {
			t.Errorf("%d looks in a minute, want hardly more than one a second", r.looks)
		}
		tb.set(running(1, 20))
		r.open(200, 95, 150)
		time.Sleep(2 * settleMax)
		wantProgress(t, states, 20)
		tb.set(running(1, 30))
		r.open(300, 150) // a later one: whoever begins now looks late enough
		time.Sleep(2 * settleMax)
		wantProgress(t, states, 30)
		looks := r.looks
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.looks != looks || tb.count() != 3 {
			t.Errorf("%d looks and %d reads after all have ended, want %d and 3", r.looks, tb.count(), looks)
		}
		if h.missed.found[1] != (time.Time{}) {
			t.Error("the change counts as missed")
		}
	})
}

// Registrations that follow each other faster than the first look after one do not put it off.
func TestLookIsNotPutOffByLaterRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: time.Hour})
		h.Listening(7)
		r.open(100, 90, 95)
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		tb.set(running(1, 20))
		r.open(200, 95)
		for id := range int64(40) {
			subscribe(t, h, 2+id)
			time.Sleep(settleMin / 2)
		}
		wantProgress(t, states, 20)
	})
}

// A tidying up that failed leaves nothing known to be registered, and the writer that looked too early is waited for all the same.
func TestWriterThatLookedTooEarlyIsReadAfterAFailedTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10), running(2, 20))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: time.Hour})
		h.Listening(7)
		_, cancel, err := h.Subscribe(t.Context(), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.open(100, 90)
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		cancel()
		time.Sleep(lingers - time.Millisecond)
		r.failWith(errDatabase)
		time.Sleep(settleMax)
		r.failWith(nil)
		tb.set(running(1, 20))
		r.open(200)
		time.Sleep(2 * settleMax)
		wantProgress(t, states, 20)
	})
}

// What an old registration waits for costs later ones no read.
func TestLongTransactionCausesOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 1), running(2, 2))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: time.Hour})
		h.Listening(7)
		r.open(100, 50)
		subscribe(t, h, 1)
		for xid := uint64(100); xid < 150; xid++ {
			r.open(xid+1, 50, xid)
			_, cancel, err := h.Subscribe(t.Context(), 2, nil)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(settleMax)
			cancel()
		}
		synctest.Wait()
		for _, ids := range tb.reads[1:] {
			if slices.Contains(ids, 1) {
				t.Fatalf("reads %v: audit 1 again before the long transaction has ended", tb.reads)
			}
		}
		r.open(500)
		time.Sleep(2 * settleMax)
		synctest.Wait()
		if last := tb.reads[len(tb.reads)-1]; !slices.Contains(last, 1) {
			t.Errorf("last read %v, want audit 1 in it", last)
		}
	})
}

// Who leaves and comes back before the rows are tidied up finds the audit registered, and the old writers still open.
func TestComingBackStillWaitsForOldWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: time.Hour})
		h.Listening(7)
		r.open(100, 90)
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(5 * settleMax)
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		tb.set(running(1, 20))
		r.open(200)
		time.Sleep(2 * settleMax)
		wantProgress(t, states, 20)
	})
}

func TestUnwatchedIsTidiedUpLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 1), running(2, 2))
		h := startHub(t, HubConfig{Loader: tb, Registry: r})
		h.Listening(7)
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		subscribe(t, h, 2)
		cancel()
		r.wantRows(t, 1, 2)
		time.Sleep(lingers)
		r.wantRows(t, 2)
		r.mu.Lock()
		clear(r.rows) // uninstalled and installed again
		r.mu.Unlock()
		time.Sleep(11 * time.Second)
		r.wantRows(t, 2)
		subscribe(t, h, 1)
		r.wantRows(t, 1, 2)
	})
}

func TestFailedRegistrationStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		var log logs
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Logger: log.logger()})
		r.failWith(errors.New("relation auditstream.watch does not exist"))
		h.Listening(7)
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		for n := range 20 {
			tb.set(running(1, 11+n))
			h.Notify(1) // the triggers of an older install ring always
			wantProgress(t, states, 11+n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := len(r.registers); got > 8 {
			t.Errorf("%d attempts to register, want no more than the safety net's", got)
		}
		if got := strings.Count(log.String(), "cannot tell the triggers"); got != 1 {
			t.Errorf("logged %d times, want once:\n%s", got, log.String())
		}
		r.failWith(nil)
		time.Sleep(11 * time.Second)
		r.wantRows(t, 1)
	})
}

func TestLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		h, err := NewHub(HubConfig{Loader: newTable(running(1, 1)), Registry: r})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		h.Listening(7)
		subscribe(t, h, 1)
		r.wantRows(t, 1)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.wantRows(t)
	})
}

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Snapshot{
		"7:7:": {Xmax: 7}, "7:18446744073709551615:7,9": {Xmax: 1<<64 - 1, InProgress: []uint64{7, 9}},
	} {
		got, err := parseSnapshot(text)
		if err != nil || got.Xmax != want.Xmax || !slices.Equal(got.InProgress, want.InProgress) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1:2", "1:x:", "1:2:x", "1:2:3:4"} {
		if got, err := parseSnapshot(text); err == nil {
			t.Errorf("%s: %+v, want an error", text, got)
		}
	}
}

// Under an older install there is nothing to register in, and the triggers ring for everything. The upgrade rings for
// everything once more, and from then on for what is registered: long before the safety net's next turn.
func TestInstallUnderOpenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10), running(2, 10))
		r.failWith(errors.New("there is no such table"))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: 24 * time.Hour})
		h.Listening(7)
		subscribe(t, h, 1)
		subscribe(t, h, 2)
		r.wantRows(t)
		r.failWith(nil)
		h.Resync()
		r.wantRows(t, 1, 2)
		r.mu.Lock()
		clear(r.rows) // installed anew
		r.mu.Unlock()
		h.Resync()
		r.wantRows(t, 1, 2)
	})
}

// Any role can ring for everything, once a second as far as the hub is concerned: each time costs one read of everything,
// although there is always a transaction open, but no registration anew and no second read when that transaction ends.
func TestResyncWithoutReasonIsOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10), running(2, 10))
		h := startHub(t, HubConfig{Loader: tb, Registry: r, Interval: 24 * time.Hour})
		h.Listening(7)
		subscribe(t, h, 1)
		subscribe(t, h, 2)
		r.wantRows(t, 1, 2)
		registers, reads := len(r.registers), tb.count()
		for xid := range uint64(10) {
			r.open(100+xid, 99+xid)
			h.Resync()
			synctest.Wait()
			r.open(102 + xid)
			time.Sleep(time.Second)
		}
		if got := len(r.registers) - registers; got > 0 {
			t.Errorf("registered %d times more, though nothing was lost", got)
		}
		if got := tb.count() - reads; got != 10 {
			t.Errorf("%d reads for 10 resyncs", got)
		}
	})
}

// A registration that is under way while the upgrade rings fails: it was too early. It is not the last word.
func TestInstallWhileRegistering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tb := newRegistry(), newTable(running(1, 10))
		late := &lateRegistry{registry: r}
		h := startHub(t, HubConfig{Loader: tb, Registry: late, Interval: 24 * time.Hour})
		late.during = func() {
			late.during = nil
			h.Resync()
		}
		h.Listening(7)
		subscribe(t, h, 1)
		r.wantRows(t, 1)
	})
}

// lateRegistry fails its first registration, during which something happens.
type lateRegistry struct {
	*registry
	during func()
}

func (r *lateRegistry) Register(ctx context.Context, instance int64, ids []int64) (Snapshot, error) {
	if r.during != nil {
		r.during()
		return Snapshot{}, errors.New("there is no such table")
	}
	return r.registry.Register(ctx, instance, ids)
}
