package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"

	"auditstream/internal/pgnotify"
	"auditstream/internal/server"
	"auditstream/internal/sql"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrNotInstalled: no table of the database was adopted, or the role may not use the schema.
	ErrNotInstalled = errors.New("auditstream is not installed in this database, or its schema may not be used: install it, with the role that reads")
	// ErrStopped: Run has returned.
	ErrStopped = errors.New("the service has stopped")
)

// Ready is Ping with ErrNotInstalled as the error where it applies.
func (s *Service) Ready(ctx context.Context) error {
	err := s.Ping(ctx)
	// undefined_table, invalid_schema_name, insufficient_privilege
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && (pgErr.Code == "42P01" || pgErr.Code == "3F000" || pgErr.Code == "42501") {
		return errors.Join(ErrNotInstalled, err)
	}
	return err
}

// Watch follows a row of a feed, whoever owns it: the state that is committed now, then each different one, until an error or the loop's end.
func (s *Service) Watch(ctx context.Context, feed, id string) iter.Seq2[*store.State, error] {
	return func(yield func(*store.State, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(s.stopped, func() { cancel(ErrStopped) })()
		var last *store.State
		for {
			next, again, err := s.follow(ctx, cmp.Or(feed, store.DefaultFeed), id, last, yield)
			if err != nil {
				yield(nil, err)
			}
			if err != nil || !again {
				return
			}
			last = next
		}
	}
}

// follow follows a row until its feed is removed or replaced, and returns the last state; again is false when the loop has ended.
func (s *Service) follow(ctx context.Context, feed, id string, last *store.State, yield func(*store.State, error) bool) (_ *store.State, again bool, err error) {
	f, key, err := s.find(ctx, feed, id)
	if err != nil {
		return nil, false, err
	}
	if f.Name == store.DefaultFeed { // this feed exists here even if nothing is installed
		if err := s.Ready(ctx); errors.Is(err, ErrNotInstalled) {
			return nil, false, err
		}
	}
	wake := pgnotify.NewBell()
	sub, err := f.Hub.Subscribe(ctx, []store.Key{key}, wake.Ring)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, false, cause
	}
	if err != nil { // the feed was replaced just now
		return last, true, nil
	}
	defer sub.Cancel()
	for confirmed := false; ; {
		for _, state := range sub.Take() {
			if last != nil && state.Same(last) && state.Terminal() == last.Terminal() { // a new install may have changed which statuses end a row
				continue
			}
			if !yield(state, nil) {
				return nil, false, nil
			}
			last = state
		}
		if !confirmed {
			sub.Confirm()
			confirmed = true
		}
		if sub.Over() {
			return last, true, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// find waits until the feeds have been read from the database once, and then finds a feed and parses the key.
func (s *Service) find(ctx context.Context, feed, id string) (server.Feed, store.Key, error) {
	select {
	case <-s.feeds.firstLoad:
	case <-ctx.Done():
		return server.Feed{}, "", context.Cause(ctx)
	}
	f, err := s.feeds.find(ctx, feed)
	if err != nil {
		return server.Feed{}, "", fmt.Errorf("feed %q: %w", feed, err)
	}
	key, ok := f.Key.Parse(id)
	if !ok {
		return server.Feed{}, "", sql.UsageError{Message: fmt.Sprintf("%q is no key of feed %s: want one of type %s", id, feed, cmp.Or(string(f.Key), "integer"))}
	}
	return f, key, nil
}
