package service

import (
	"context"

	"auditstream/internal/pgnotify"
	"auditstream/internal/server"
	"auditstream/internal/store"
)

// hub is a pgnotify.Hub as the server sees it.
type hub struct{ *pgnotify.Hub }

var _ server.Hub = hub{}

// Subscribe implements [server.Hub].
func (h hub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (server.Subscription, error) {
	s, err := h.Hub.Subscribe(ctx, keys, wake)
	if err != nil {
		return nil, err // and not a nil of the other type
	}
	return s, nil
}

// SubscribeOwned implements [server.Hub].
func (h hub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (server.Subscription, error) {
	s, err := h.Hub.SubscribeOwned(ctx, viewer, wake)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// sink is what a listener tells. A resync follows each install and each connection, so the registrar looks again, too.
type sink struct {
	*schemaWatch
	registrar *pgnotify.Registrar
}

var _ pgnotify.Sink = sink{}

// Resync implements [pgnotify.Sink].
func (s sink) Resync() {
	s.schemaWatch.Resync()
	s.registrar.Look()
}
