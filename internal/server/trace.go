package server

import (
	"cmp"
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

// traced makes a span of each request except probes; without a tracer it returns next. The span links to the client's own trace and does not
// continue it, because otherwise clients would decide what is sampled. The span has neither the client's address nor any text that the
// client chooses freely, because some put tokens there: otelhttp records these, so it is not used.
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
		a := &statusRecorder{ResponseWriter: w}
		next.ServeHTTP(a, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", cmp.Or(a.status, http.StatusOK)))
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
	version := strings.TrimSuffix(strings.TrimPrefix(r.Proto, "HTTP/"), ".0") // OpenTelemetry writes 1.1 and 2
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

// statusRecorder is a ResponseWriter that records the status, 0 before there is one, and counts the body's bytes.
type statusRecorder struct {
	http.ResponseWriter
	status, bytes int
}

func (a *statusRecorder) WriteHeader(status int) {
	a.status = cmp.Or(a.status, status)
	a.ResponseWriter.WriteHeader(status)
}

func (a *statusRecorder) Write(p []byte) (int, error) {
	a.status = cmp.Or(a.status, http.StatusOK)
	n, err := a.ResponseWriter.Write(p)
	a.bytes += n
	return n, err
}

// Unwrap lets an http.ResponseController flush, set deadlines and take the connection.
func (a *statusRecorder) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// nameSpan names the request's span, if there is one, after its route.
func (s *Handler) nameSpan(r *http.Request) {
	if s.cfg.Tracer == nil {
		return
	}
	template, err := mux.CurrentRoute(r).GetPathTemplate()
	if err != nil {
		return
	}
	template = templateForFeed(r, template)
	span := trace.SpanFromContext(r.Context())
	span.SetName(methodOf(r, "HTTP") + " " + template)
	span.SetAttributes(attribute.String("http.route", template))
}

// endSpan ends a stream's span when the stream begins, because the stream may last an hour. The later End in traced has no effect.
func (s *Handler) endSpan(ctx context.Context) {
	if s.cfg.Tracer == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(attribute.Int("http.response.status_code", http.StatusOK))
	span.End()
}

// failSpan marks the span of a request that caused a panic.
func (s *Handler) failSpan(ctx context.Context) {
	if s.cfg.Tracer != nil {
		trace.SpanFromContext(ctx).SetStatus(codes.Error, "panic")
	}
}
