package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errands are what others want done on a connection that waits for notifications: it holds the locks by which writers see what is
// watched. Each is done between two notifications. Safe for concurrent use, but for wait and run.
type errands struct {
	mu        sync.Mutex
	todo      []*errand
	interrupt context.CancelFunc // ends the wait for a notification; nil: there is none
	over      bool
}

type errand struct {
	ctx  context.Context
	f    func(ctx context.Context, conn *pgx.Conn) error
	done chan error // capacity 1
}

// errSessionOver is why nothing is done on a session's connection any more.
var errSessionOver = errors.New("the session that listens is over")

// do runs f on the connection, between two notifications, and returns its error, which is the session's end. When ctx ends before, f
// does not run. f must keep to its context: notifications wait meanwhile.
func (e *errands) do(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	one := &errand{ctx: ctx, f: f, done: make(chan error, 1)}
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		return errSessionOver
	}
	e.todo = append(e.todo, one)
	if e.interrupt != nil {
		e.interrupt()
	}
	e.mu.Unlock()
	select {
	case err := <-one.done:
		return err
	case <-ctx.Done():
	}
	e.mu.Lock()
	before := len(e.todo)
	e.todo = slices.DeleteFunc(e.todo, func(other *errand) bool { return other == one })
	begun := len(e.todo) == before
	e.mu.Unlock()
	if begun {
		return <-one.done // what was done must not go unnoticed: a lock would be held that nobody knows of
	}
	return context.Cause(ctx)
}

// end refuses what is still to be done, and what comes later.
func (e *errands) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	for _, one := range e.todo {
		one.done <- errSessionOver
	}
	e.todo = nil
}

// begin returns what is to be done, and the context of a wait that do interrupts.
func (e *errands) begin(ctx context.Context) (todo []*errand, wait context.Context, stop context.CancelFunc) {
	wait, stop = context.WithCancel(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	todo, e.todo = e.todo, nil
	e.interrupt = stop
	return todo, wait, stop
}

// wait does what is to be done, or waits for a notification, and returns one or nil. The error is the session's end, unless it is
// ctx's.
func (e *errands) wait(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	todo, wait, stop := e.begin(ctx)
	defer stop()
	if len(todo) > 0 {
		return nil, run(conn, todo)
	}
	n, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		return n, nil
	case wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed():
		return nil, nil // interrupted
	default:
		return nil, fmt.Errorf("wait for a notification: %w", err)
	}
}

// run does one after the other, until one fails.
func run(conn *pgx.Conn, todo []*errand) error {
	for k, one := range todo {
		if err := one.ctx.Err(); err != nil {
			one.done <- err // and f has not run
			continue
		}
		err := one.f(one.ctx, conn)
		one.done <- err
		if err != nil {
			for _, rest := range todo[k+1:] {
				rest.done <- errSessionOver
			}
			return err
		}
	}
	return nil
}
