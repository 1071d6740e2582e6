package service

import (
	"context"

	"auditstream/internal/pgnotify"
	"auditstream/internal/store"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracedLoader makes a span of each read. Without a tracer traced returns the loader itself.
type tracedLoader struct {
	loader pgnotify.Loader
	tracer trace.Tracer
}

func traced(loader pgnotify.Loader, provider trace.TracerProvider) pgnotify.Loader {
	if provider == nil {
		return loader
	}
	return tracedLoader{loader: loader, tracer: provider.Tracer("auditstream/internal/pgnotify")}
}

// Rows records in the span how many rows are read, not which, and that the read failed, not why: the log says why.
func (l tracedLoader) Rows(ctx context.Context, keys []store.Key) ([]*store.State, error) {
	ctx, span := l.tracer.Start(ctx, "auditstream.read", trace.WithAttributes(attribute.Int("auditstream.audits", len(keys))))
	defer span.End()
	states, err := l.loader.Rows(ctx, keys)
	if err != nil {
		span.SetStatus(codes.Error, "the database could not be read")
	}
	return states, err
}
