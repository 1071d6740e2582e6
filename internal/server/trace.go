package server

import (
	"context"
	"net/http"
	"slices"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traced makes a span of each request that is not a probe's; without a tracer it is next itself. A client's own trace is
// linked to and not continued: clients are strangers, who would otherwise decide what is sampled.
func (s *Server) traced(next http.Handler) http.Handler {
	if s.cfg.Tracer == nil {
		return next
	}
	return otelhttp.NewHandler(next, "",
		otelhttp.WithTracerProvider(reticentProvider{s.cfg.Tracer}),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }),
		otelhttp.WithFilter(func(r *http.Request) bool { return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" }),
	)
}

// nameSpan calls the request's span, where there is one, by its route.
func (s *Server) nameSpan(r *http.Request) {
	if s.cfg.Tracer == nil {
		return
	}
	template, err := mux.CurrentRoute(r).GetPathTemplate()
	if err != nil {
		return
	}
	template = ofFeed(r, template)
	span := trace.SpanFromContext(r.Context())
	span.SetName(methodOf(r, "HTTP") + " " + template)
	span.SetAttributes(attribute.String("http.route", template))
}

// endSpan ends a stream's span when the stream begins: what follows may take an hour. otelhttp's own End is then ignored.
func (s *Server) endSpan(ctx context.Context) {
	if s.cfg.Tracer == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(attribute.Int("http.response.status_code", http.StatusOK))
	span.End()
}

// failSpan is for a request that caused a panic.
func (s *Server) failSpan(ctx context.Context) {
	if s.cfg.Tracer != nil {
		trace.SpanFromContext(ctx).SetStatus(codes.Error, "panic")
	}
}

// reticentProvider takes from spans what the client chose freely, because some put tokens anywhere, and where it is: of what
// otelhttp would say about a request's path, host, user agent and addresses nothing is left.
type reticentProvider struct{ trace.TracerProvider }

func (p reticentProvider) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return reticentTracer{p.TracerProvider.Tracer(name, options...)}
}

type reticentTracer struct{ trace.Tracer }

var told = []attribute.Key{"http.request.method", "url.scheme", "network.protocol.version"}

func (t reticentTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	asked := trace.NewSpanStartConfig(options...)
	attributes := slices.DeleteFunc(slices.Clone(asked.Attributes()), func(a attribute.KeyValue) bool { return !slices.Contains(told, a.Key) })
	kept := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(asked.SpanKind()), trace.WithAttributes(attributes...)}
	for _, link := range asked.Links() {
		kept = append(kept, trace.WithLinks(trace.Link{SpanContext: link.SpanContext.WithTraceState(trace.TraceState{})}))
	}
	return t.Tracer.Start(ctx, name, kept...)
}
