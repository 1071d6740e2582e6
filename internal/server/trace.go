package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traced makes a span of each request that is not a probe's; without a tracer it is next itself. A client's own trace is
// linked to and not continued: clients are strangers, who would otherwise decide what is sampled. Of what the client chose freely, and of
// where it is, nothing is in the span, because some put tokens anywhere: that is why this is not otelhttp.
func (s *Handler) traced(next http.Handler) http.Handler {
	if s.cfg.Tracer == nil {
		return next
	}
	tracer := s.cfg.Tracer.Tracer("auditstream/internal/server")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		ctx, span := tracer.Start(r.Context(), methodOf(r, "HTTP"), spanOf(r)...)
		defer span.End()
		a := &answered{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(a, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", a.status))
		if a.bytes > 0 {
			span.SetAttributes(attribute.Int("http.response.body.size", a.bytes))
		}
		if a.status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	})
}

func spanOf(r *http.Request) []trace.SpanStartOption {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	version := strings.TrimSuffix(strings.TrimPrefix(r.Proto, "HTTP/"), ".0") // 1.1, and 2 as OpenTelemetry has it
	if r.ProtoMajor == 1 {
		version = "1." + strconv.Itoa(r.ProtoMinor)
	}
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", methodOf(r, "_OTHER")), attribute.String("url.scheme", scheme),
		attribute.String("network.protocol.version", version))}
	theirs := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
	if remote := trace.SpanContextFromContext(theirs).WithTraceState(trace.TraceState{}); remote.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: remote}))
	}
	return options
}

// answered notes what a request was answered.
type answered struct {
	http.ResponseWriter
	status, bytes int
}

func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answered) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.bytes += n
	return n, err
}

// Unwrap lets an http.ResponseController flush, set deadlines and take the connection.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// nameSpan calls the request's span, where there is one, by its route.
func (s *Handler) nameSpan(r *http.Request) {
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

// endSpan ends a stream's span when the stream begins: what follows may take an hour. traced's own End is then ignored.
func (s *Handler) endSpan(ctx context.Context) {
	if s.cfg.Tracer == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(attribute.Int("http.response.status_code", http.StatusOK))
	span.End()
}

// failSpan is for a request that caused a panic.
func (s *Handler) failSpan(ctx context.Context) {
	if s.cfg.Tracer != nil {
		trace.SpanFromContext(ctx).SetStatus(codes.Error, "panic")
	}
}
