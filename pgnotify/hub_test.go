package pgnotify

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"

	"github.com/prometheus/client_golang/prometheus"
)

func TestFirstStateIsFromAReadThatBeganAfterSubscribe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		tb.takes = 100 * time.Millisecond
		h := startHub(t, HubConfig{Loader: tb})
		go func() { _, _, _ = h.Subscribe(t.Context(), 1, nil) }() // its read begins now and sees 10
		time.Sleep(50 * time.Millisecond)
		tb.set(running(1, 20)) // nobody announces it
		wantProgress(t, subscribe(t, h, 1), 20)
		if got, want := tb.count(), 2; got != want {
			t.Errorf("%d reads, want %d", got, want)
		}
	})
}

func TestUpdateBetweenSubscribeAndFirstReadIsSeenOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h, err := NewHub(HubConfig{Loader: tb})
		if err != nil {
			t.Fatal(err)
		}
		opened := make(chan (<-chan *store.State))
		go func() { opened <- subscribe(t, h, 1) }()
		synctest.Wait() // it is registered
		tb.set(running(1, 20))
		h.Notify(1)
		go func() { _ = h.Run(t.Context()) }()
		states := <-opened
		wantProgress(t, states, 20)
		wantNothing(t, states)
	})
}

func TestPitfall04NotificationDuringAReadLeadsToAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)

		tb.takes = 100 * time.Millisecond
		h.Notify(1)
		time.Sleep(50 * time.Millisecond) // the read has looked
		tb.set(running(1, 20))
		h.Notify(1)
		time.Sleep(100 * time.Millisecond)
		wantNothing(t, states) // the first read found nothing new
		time.Sleep(100 * time.Millisecond)
		wantProgress(t, states, 20)
	})
}

func TestNewestStateWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		reg := prometheus.NewRegistry()
		h := startHub(t, HubConfig{Loader: tb, Registerer: reg})
		slow, fast := subscribe(t, h, 1), subscribe(t, h, 1)
		wantProgress(t, fast, 10)
		for _, progress := range []int{20, 30, 40} {
			tb.set(running(1, progress))
			h.Notify(1)
			wantProgress(t, fast, progress)
		}
		wantProgress(t, slow, 40)
		wantNothing(t, slow)
		if got, want := metric(t, reg, "auditstream_states_coalesced_total"), 3.0; got != want {
			t.Errorf("coalesced %v, want %v", got, want)
		}
	})
}

func TestManyNotificationsAreFewReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		subscribe(t, h, 1)
		tb.takes = time.Second
		before := tb.count()
		for range 10_000 {
			h.Notify(1)
		}
		time.Sleep(5 * time.Second)
		if got := tb.count() - before; got > 2 {
			t.Errorf("%d reads for 10,000 notifications at once, want 2 at most", got)
		}
	})
}

func TestUntakenTerminalStateIsNotReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		states := subscribe(t, h, 1)
		tb.set(completed(1))
		h.Notify(1)
		synctest.Wait()
		tb.set(running(1, 0)) // started again
		h.Notify(1)
		if got := next(t, states); !got.Terminal() {
			t.Errorf("got %s, want the terminal state", got.JSON)
		}
	})
}

func TestNotificationWithoutWatcherIsNoRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		h.Notify(1)
		h.Resync()
		synctest.Wait()
		if got := tb.count(); got != 0 {
			t.Errorf("%d reads, want none", got)
		}
	})
}

func TestManyNewSubscribersAreFewReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.takes = 10 * time.Millisecond
		h := startHub(t, HubConfig{Loader: tb})
		var wg sync.WaitGroup
		for id := range int64(1000) {
			wg.Go(func() { subscribe(t, h, id+1) })
		}
		wg.Wait()
		if got := tb.count(); got > 2 {
			t.Errorf("%d reads for 1000 subscribers at once, want 2 at most", got)
		}
	})
}

func TestResyncReadsAllWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10), running(2, 10))
		h := startHub(t, HubConfig{Loader: tb})
		one, two := subscribe(t, h, 1), subscribe(t, h, 2)
		wantProgress(t, one, 10)
		wantProgress(t, two, 10)
		tb.set(running(1, 20))
		tb.set(running(2, 30))
		h.Resync()
		wantProgress(t, one, 20)
		wantProgress(t, two, 30)
	})
}

func TestDeletedRowIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)
		tb.drop(1)
		h.Notify(1)
		if got := next(t, states); got.Found || got.ID != 1 {
			t.Errorf("got %+v, want that audit 1 is not found", got)
		}
		tb.set(running(1, 10)) // the very same row again
		h.Notify(1)
		wantProgress(t, states, 10)
	})
}

func TestAbsentRowOpensTheSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, HubConfig{Loader: newTable()})
		if got := next(t, subscribe(t, h, 7)); got.Found || got.ID != 7 {
			t.Errorf("got %+v, want that audit 7 is not found", got)
		}
	})
}

func TestOwnerChangeWithTheSameJSONIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		row, eve := running(1, 10), "eve"
		tb := newTable(row)
		h := startHub(t, HubConfig{Loader: tb})
		states := subscribe(t, h, 1)
		before := next(t, states)
		row.UserID = &eve
		tb.set(row)
		h.Notify(1)
		after := next(t, states)
		if after.Fingerprint != before.Fingerprint || *after.Audit.UserID != "eve" {
			t.Errorf("got %s of %v, want the same JSON of eve", after.JSON, after.Audit.UserID)
		}
	})
}

func TestUnreadableRowIsDeliveredAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad := true
		h := startHub(t, HubConfig{Loader: loaderFunc(func(_ context.Context, ids []int64) ([]*store.State, error) {
			if bad {
				return []*store.State{{ID: 1, Err: errors.New("cannot be converted")}}, nil
			}
			return []*store.State{store.NewState(running(1, 10))}, nil
		})})
		states := subscribe(t, h, 1)
		if got := next(t, states); got.Err == nil {
			t.Errorf("got %+v, want an error", got)
		}
		h.Notify(1)
		wantNothing(t, states) // the same error again is no news
		bad = false
		h.Notify(1)
		wantProgress(t, states, 10)
	})
}

func TestAnswersThatWereNotAskedForAreIgnored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, HubConfig{Loader: loaderFunc(func(context.Context, []int64) ([]*store.State, error) {
			return []*store.State{
				store.NewState(running(2, 50)), store.NewState(running(1, 10)), store.NewState(running(1, 99)),
			}, nil
		})})
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10) // the first of two
		wantNothing(t, states)
	})
}
