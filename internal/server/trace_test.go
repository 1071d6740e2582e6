package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func tracer() (spans *tracetest.SpanRecorder, configure func(*Config)) {
	spans = tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	return spans, func(c *Config) { c.Tracer = provider }
}

func attributesOf(span sdktrace.ReadOnlySpan) map[attribute.Key]string {
	all := map[attribute.Key]string{}
	for _, a := range span.Attributes() {
		all[a.Key] = a.Value.String()
	}
	return all
}

const strangersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// No span has text that a client sends, above all tokens in the wrong place; the client's trace is linked to and not continued.
func TestRequestIsASpanWithoutAnythingOfTheClients(t *testing.T) {
	t.Parallel()
	token := aliceToken(t)
	for _, tt := range []struct {
		method, path, name string
		want               map[attribute.Key]string
	}{
		{"GET", statusPathOf42, "GET /api/v1/audits/{audit_id}/status", map[attribute.Key]string{
			"http.request.method": "GET", "http.route": "/api/v1/audits/{audit_id}/status", "http.response.status_code": "200",
			"http.response.body.size": fmt.Sprint(len(ended("completed").JSON)), "url.scheme": "http", "network.protocol.version": "1.1",
		}},
		{"GET", streamPath + "?token=" + token, "GET /api/v1/sse/audits/{audit_id}/progress", map[attribute.Key]string{"http.response.status_code": "401"}},
		{"GET", "/api/v1/audits/" + token + "/status", "GET /api/v1/audits/{audit_id}/status", map[attribute.Key]string{"http.response.status_code": "401"}},
		{"GET", "/" + token, "GET", map[attribute.Key]string{"http.response.status_code": "404"}},
		{token, statusPathOf42, "HTTP /api/v1/audits/{audit_id}/status", map[attribute.Key]string{"http.request.method": "_OTHER", "http.response.status_code": "405"}},
	} {
		spans, configure := tracer()
		sub, _ := one(ended("completed"))
		r := authorized(t, tt.path, "User-Agent", token, "X-Forwarded-For", token, "Baggage", "token="+token,
			"Traceparent", "00-"+strangersTrace+"-00f067aa0ba902b7-01", "Tracestate", "token="+token[:100])
		r.Method, r.Host, r.RemoteAddr = tt.method, token, "192.0.2.7:1234"
		newTestServer(t, sub, configure).routes().ServeHTTP(newClient(), r)
		all := spans.Ended()
		if len(all) != 1 {
			t.Fatalf("%.20s: %d spans, want 1", tt.path, len(all))
		}
		span, got := all[0], attributesOf(all[0])
		if span.Name() != tt.name {
			t.Errorf("span %q, want %q", span.Name(), tt.name)
		}
		for key, want := range tt.want {
			if got[key] != want {
				t.Errorf("%s: %s %q, want %q", tt.name, key, got[key], want)
			}
		}
		known := []attribute.Key{"http.request.method", "http.response.body.size", "http.response.status_code", "http.route", "network.protocol.version", "url.scheme"}
		for _, key := range slices.Sorted(maps.Keys(got)) {
			if !slices.Contains(known, key) {
				t.Errorf("%s: unexpected attribute %s", tt.name, key)
			}
		}
		stub := fmt.Sprintf("%+v", tracetest.SpanStubFromReadOnlySpan(span))
		for _, secret := range []string{token, token[:100], "192.0.2.7", "alice"} {
			if strings.Contains(stub, secret) {
				t.Errorf("%s: the span has %.20s: %s", tt.name, secret, stub)
			}
		}
		if span.Parent().IsValid() || span.SpanContext().TraceID().String() == strangersTrace {
			t.Errorf("%s: a stranger's trace is continued", tt.name)
		}
		if links := span.Links(); len(links) != 1 || links[0].SpanContext.TraceID().String() != strangersTrace {
			t.Errorf("%s: links %v, want one to the client's trace", tt.name, links)
		}
	}
}

func TestProbesAreNotTraced(t *testing.T) {
	t.Parallel()
	spans, configure := tracer()
	sub, _ := one(running(1))
	routes := newTestServer(t, sub, configure).routes()
	for _, path := range []string{"/healthz", "/readyz"} {
		routes.ServeHTTP(newClient(), get(t, path))
	}
	if n := len(spans.Started()); n != 0 {
		t.Errorf("%d spans, want none", n)
	}
}
