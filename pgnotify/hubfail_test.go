package pgnotify

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"
)

var errDatabase = errors.New("the database is away")

func TestFailedReadKeepsIdsDirtyAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logs
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Logger: log.logger(), Interval: time.Hour})
		states := subscribe(t, h, 1)
		wantProgress(t, states, 10)

		tb.failWith(errDatabase)
		tb.set(running(1, 20))
		h.Notify(1)
		time.Sleep(time.Minute)
		wantNothing(t, states)
		tb.failWith(nil)
		time.Sleep(time.Second) // without another notification
		wantProgress(t, states, 20)

		if got := log.count("database read failed"); got != 1 {
			t.Errorf("the failure was logged %d times, want once:\n%s", got, &log)
		}
		if got := log.count("database reads work again"); got != 1 {
			t.Errorf("the recovery was logged %d times, want once:\n%s", got, &log)
		}
	})
}

func TestFailingReadsBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb, Interval: time.Hour})
		subscribe(t, h, 1)
		tb.failWith(errDatabase)
		before := tb.count()
		for range 60_000 { // notifications do not shorten the delay
			h.Notify(1)
			time.Sleep(time.Millisecond)
		}
		if got := tb.count() - before; got < 60 || got > 130 {
			t.Errorf("%d reads in a minute of failures, want one each 0.5 s to 1 s", got)
		}
	})
}

func TestFirstReadThatFailsIsTheSubscribersError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		tb.failWith(errDatabase)
		h := startHub(t, HubConfig{Loader: tb})
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, cause)
		defer cancel()
		states, stop, err := h.Subscribe(ctx, 1, nil)
		if !errors.Is(err, cause) || !errors.Is(err, errDatabase) || !strings.HasPrefix(err.Error(), "first read: ") {
			t.Errorf("error %v, want the context's cause and the read's", err)
		}
		if states != nil || stop != nil {
			t.Error("a channel or cancel beside the error, want nil")
		}
		wantEmpty(t, h)
	})
}

func TestReadThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		tb.takes = time.Hour
		h := startHub(t, HubConfig{Loader: tb, ReadTimeout: 3 * time.Second})
		go func() {
			time.Sleep(2 * time.Second)
			tb.mu.Lock()
			defer tb.mu.Unlock()
			tb.takes = 0
		}()
		start := time.Now()
		subscribe(t, h, 1)
		if got := time.Since(start); got < 3*time.Second || got > 4*time.Second {
			t.Errorf("opened after %v, want 3 s and a back-off", got)
		}
	})
}

func TestCancelDuringARead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		states, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantProgress(t, states, 10)
		tb.takes = time.Second
		tb.set(running(1, 20))
		h.Notify(1)
		time.Sleep(time.Millisecond)
		cancel()
		time.Sleep(2 * time.Second)
		wantNothing(t, states)
		wantEmpty(t, h)
	})
}

func TestCancelDuringAFailingReadForgetsTheAudit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		_, cancel, err := h.Subscribe(t.Context(), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		tb.takes = time.Second
		tb.failWith(errDatabase)
		h.Notify(1)
		time.Sleep(time.Millisecond)
		cancel()
		time.Sleep(time.Minute)
		wantEmpty(t, h)
		if got := tb.count(); got != 2 {
			t.Errorf("%d reads, want 2: nobody watches any more", got)
		}
	})
}

func TestSubscribersShareAnAuditInAnyOrderOfCancels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		h := startHub(t, HubConfig{Loader: tb})
		var cancels []func()
		var slots []<-chan *store.State
		for range 3 {
			states, cancel, err := h.Subscribe(t.Context(), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantProgress(t, states, 10)
			slots, cancels = append(slots, states), append(cancels, cancel)
		}
		cancels[0]()
		tb.set(running(1, 20))
		h.Notify(1)
		wantNothing(t, slots[0])
		wantProgress(t, slots[1], 20)
		wantProgress(t, slots[2], 20)
		cancels[2]()
		cancels[1]()
		wantEmpty(t, h)
	})
}

// wantEmpty checks that nothing is kept for those who have gone.
func wantEmpty(t testing.TB, h *Hub) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watched) != 0 || len(h.dirty) != 0 {
		t.Errorf("%d watched and %d dirty, want none", len(h.watched), len(h.dirty))
	}
}

func TestRunEndsDuringARead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable()
		tb.takes = time.Hour
		h, err := NewHub(HubConfig{Loader: tb, ReadTimeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		go func() { _, _, _ = h.Subscribe(ctx, 1, nil) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("Run returned %v after %v, want nil at once", err, time.Since(start))
		}
	})
}

func TestHubConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]HubConfig{
		"Loader":      {},
		"Interval":    {Loader: newTable(), Interval: -1},
		"ReadTimeout": {Loader: newTable(), ReadTimeout: -1},
	} {
		_, err := NewHub(cfg)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one that names it", name, err)
		}
	}
}
