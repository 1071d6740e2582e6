package service

import (
	"context"
	"errors"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/server"
	"auditstream/internal/store"
)

// serverHub adapts a pgnotify.Hub to the server's interface, whose methods return an interface.
type serverHub struct{ *pgnotify.Hub }

var _ server.Hub = serverHub{}

// Subscribe implements [server.Hub].
func (h serverHub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (server.Subscription, error) {
	return h.Hub.Subscribe(ctx, keys, wake)
}

// SubscribeOwned implements [server.Hub].
func (h serverHub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (server.Subscription, error) {
	return h.Hub.SubscribeOwned(ctx, viewer, wake)
}

// find is [server.Config.Feeds]. It says that there is no such feed only when the database was asked after the question came: the feed may
// have been installed just now. All who ask meanwhile share an answer, and there is one a second at most.
func (a *feeds) find(ctx context.Context, name string) (server.Feed, error) {
	f, err := a.known(name)
	if !errors.Is(err, server.ErrNoFeed) {
		return f, err
	}
	if err := a.reloadFor(ctx); err != nil {
		return server.Feed{}, err
	}
	return a.known(name)
}

// known finds a feed among those that the database had when it was last asked.
func (a *feeds) known(name string) (server.Feed, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch f := a.feeds[name]; {
	case f != nil:
		return server.Feed{Feed: f.Feed, Hub: serverHub{f.hub}}, nil
	case !a.loaded:
		return server.Feed{}, errFeedsUnknown
	case time.Since(a.removed[name]) < awayFor:
		return server.Feed{}, errAway
	default:
		return server.Feed{}, server.ErrNoFeed
	}
}

// reloadFor reloads for a request, unless a reload that began after its call has done so, at most once a second.
func (a *feeds) reloadFor(ctx context.Context) error {
	asked := time.Now()
	a.asking.Lock()
	defer a.asking.Unlock()
	a.mu.RLock()
	began, ok := a.reloaded, a.answered
	a.mu.RUnlock()
	if began.Before(asked) {
		select {
		case <-time.After(time.Until(began.Add(minCheckGap))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		ok = a.reload(ctx)
	}
	if !ok {
		return errFeedsUnknown
	}
	return nil
}
