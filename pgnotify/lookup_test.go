package pgnotify

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/store"
)

// S5: who only asks is no viewer; nothing is written because of it, however often.
func TestS5LookingRegistersNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		h := startHub(t, HubConfig{Loader: newTable(running(1, 10)), Registry: r})
		h.Listening(7)
		for range 100 {
			if state, err := h.Read(t.Context(), 1); err != nil || state.Audit.Progress != 10 {
				t.Fatalf("%+v, %v, want progress 10", state, err)
			}
			if state, err := h.Read(t.Context(), 2); err != nil || state.Found || state.ID != 2 {
				t.Fatalf("%+v, %v, want that there is no such row", state, err)
			}
		}
		time.Sleep(time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.registers) > 0 || len(r.rows) > 0 {
			t.Errorf("registered: %v, rows left %v, want none", r.registers, r.rows)
		}
	})
}

// Whoever asks during a read is in the next one, with all the others: none is shown a state older than its question.
func TestLookupsShareReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(running(1, 10))
		tb.takes = 100 * time.Millisecond
		h := startHub(t, HubConfig{Loader: tb})
		var asking sync.WaitGroup
		ask := func(id int64, want int) {
			asking.Go(func() {
				state, err := h.Read(t.Context(), id)
				if err != nil || state.Audit.Progress != want {
					t.Errorf("audit %d: %+v, %v, want progress %d", id, state, err, want)
				}
			})
		}
		ask(1, 10)
		time.Sleep(50 * time.Millisecond)
		tb.set(running(1, 20))
		for id := range int64(maxLookup) {
			ask(1, 20)
			ask(id+2, 0)
		}
		asking.Wait()
		if got, want := tb.count(), 3; got != want { // 1,001 audits are two
			t.Errorf("%d reads, want %d", got, want)
		}
	})
}

func TestLookupFailsAndIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		h := startHub(t, HubConfig{Loader: loaderFunc(func(ctx context.Context, _ []int64) ([]*store.State, error) {
			<-ctx.Done()
			return nil, errors.Join(broken, ctx.Err())
		}), ReadTimeout: 3 * time.Second})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.Read(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want the caller's deadline after 1 s", err, time.Since(start))
		}
		if _, err := h.Read(t.Context(), 1); !errors.Is(err, broken) {
			t.Errorf("%v, want that of the read", err)
		}
	})
}
