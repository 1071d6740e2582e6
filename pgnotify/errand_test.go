package pgnotify

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
)

// turn does what is to be done, as wait does.
func (e *errands) turn(ctx context.Context) error {
	todo, _, stop := e.begin(ctx)
	defer stop()
	return run(nil, todo)
}

func TestErrandsAreDoneInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e errands
		_, wait, stop := e.begin(t.Context())
		defer stop()
		var order []int
		var done [3]chan error
		for n := range done {
			done[n] = make(chan error, 1)
			go func() {
				done[n] <- e.do(t.Context(), func(context.Context, *pgx.Conn) error {
					if order = append(order, n); n == 1 {
						return errDatabase
					}
					return nil
				})
			}()
			synctest.Wait()
		}
		if wait.Err() == nil {
			t.Error("the wait for a notification goes on")
		}
		if err := e.turn(t.Context()); !errors.Is(err, errDatabase) {
			t.Errorf("%v, want the error that ends the session", err)
		}
		for n, want := range []error{nil, errDatabase, errSessionOver} {
			if err := <-done[n]; !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		if len(order) != 2 {
			t.Errorf("%v were done, want two", order)
		}
	})
}

func TestErrandsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e errands
		never := func(context.Context, *pgx.Conn) error { t.Error("done after the end"); return nil }
		done := make(chan error)
		go func() { done <- e.do(t.Context(), never) }() // nobody waits for a notification yet
		synctest.Wait()
		e.end()
		if err := <-done; !errors.Is(err, errSessionOver) {
			t.Errorf("%v, want that the session is over", err)
		}
		if err := e.do(t.Context(), never); !errors.Is(err, errSessionOver) {
			t.Errorf("%v, want that the session is over", err)
		}
		e.end() // does no harm
		if err := e.turn(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// One that timed out before it began is not done; also not when the session has taken it out already.
func TestErrandThatTimedOutIsNotDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e errands
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		for _, taken := range []bool{false, true} {
			go func() {
				done <- e.do(ctx, func(context.Context, *pgx.Conn) error { t.Error("done"); return nil })
			}()
			synctest.Wait()
			var todo []*errand
			if taken {
				todo, _, _ = e.begin(t.Context())
			}
			cancel(enough)
			if taken {
				if err := run(nil, todo); err != nil {
					t.Error(err)
				}
			}
			if err := <-done; err == nil {
				t.Errorf("%v, want an error", err)
			}
			if err := e.turn(t.Context()); err != nil {
				t.Error(err)
			}
			ctx, cancel = context.WithCancelCause(t.Context())
		}
		cancel(nil)
	})
}

// Whoever asked for locks gave up at the very moment at which they were taken: they were held, and nobody knew, until the session
// ended.
func TestErrandThatHasBegunIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e errands
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan error)
		go func() {
			done <- e.do(ctx, func(context.Context, *pgx.Conn) error { time.Sleep(time.Second + time.Millisecond); return nil })
		}()
		synctest.Wait()
		if err := e.turn(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%v, want what came of it", err)
		}
	})
}
