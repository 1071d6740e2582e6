package service

import (
	"context"

	"auditstream/internal/pgnotify"
	"auditstream/internal/server"
	"auditstream/internal/store"
)

// serverHub adapts a pgnotify.Hub to the server's interface, whose Subscribe returns an interface.
type serverHub struct{ *pgnotify.Hub }

var _ server.Hub = serverHub{}

// Subscribe implements [server.Hub].
func (h serverHub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (server.Subscription, error) {
	s, err := h.Hub.Subscribe(ctx, keys, wake)
	if err != nil {
		return nil, err // s is a nil pointer, which would not be a nil interface
	}
	return s, nil
}

// SubscribeOwned implements [server.Hub].
func (h serverHub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (server.Subscription, error) {
	s, err := h.Hub.SubscribeOwned(ctx, viewer, wake)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// listenerSink receives what the listener hears. A resync follows each install and each connection, so the registrar checks its locks
// then, too.
type listenerSink struct {
	*schemaWatch
	registrar *pgnotify.Registrar
}

var _ pgnotify.Sink = listenerSink{}

// Resync implements [pgnotify.Sink].
func (s listenerSink) Resync() {
	s.schemaWatch.Resync()
	s.registrar.Look()
}
