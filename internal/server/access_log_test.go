package server

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/testkit"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// records is a log of JSON records.
type records struct{ testkit.Log }

// of returns the records with a message, without their times.
func (r *records) of(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(r.String()) {
		var record map[string]any
		testkit.NoError(t, json.Unmarshal([]byte(line), &record))
		if record["msg"] == message {
			for _, name := range []string{"time", "level", "msg"} {
				delete(record, name)
			}
			found = append(found, record)
		}
	}
	return found
}

func (r *records) configure(c *Config) {
	c.AccessLog = true
	c.Logger = slog.New(slog.NewJSONHandler(r, nil))
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	token := aliceToken(t)
	for _, tt := range []struct {
		method, path string
		want         map[string]any
	}{
		{"GET", streamPath, map[string]any{"method": "GET", "route": streamPath, "status": 200.0, "bytes": 0.0}},
		{"GET", streamPath + "?token=" + token, map[string]any{"method": "GET", "route": streamPath, "status": 401.0}},
		{"GET", statusPathOf42, map[string]any{"method": "GET", "route": statusPathOf42, "status": 200.0, "bytes": float64(len(ended("completed").JSON))}},
		{"HEAD", statusPathOf42, map[string]any{"method": "HEAD", "route": statusPathOf42, "status": 200.0, "bytes": 0.0}},
		{"GET", "/api/v1/audits/" + token + "/status", map[string]any{"route": "/api/v1/audits/{audit_id}/status", "status": 401.0}},
		{"GET", "/" + token, map[string]any{"route": "none", "status": 404.0}},
		{token, "/healthz", map[string]any{"method": "other", "route": "/healthz", "status": 405.0}},
	} {
		log := new(records)
		sub, _ := one(ended("completed"))
		r := authorized(t, tt.path, "User-Agent", token, "X-Request-Id", "0f8fad5b-d9cb-469f-a165-70867728950e")
		r.Method, r.RemoteAddr = tt.method, "192.0.2.7:1234"
		newTestServer(t, sub, log.configure).routes().ServeHTTP(newClient(), r)
		got := log.of(t, "request")
		if len(got) != 1 {
			t.Fatalf("%s %s: %d records, want 1", tt.method, tt.path, len(got))
		}
		maps.Copy(tt.want, map[string]any{"remote": "192.0.2.7", "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e", "proto": "HTTP/1.1"})
		for name, want := range tt.want {
			if got[0][name] != want {
				t.Errorf("%.4s %.40s: %s %v, want %v", tt.method, tt.path, name, got[0][name], want)
			}
		}
		if names := slices.Sorted(maps.Keys(got[0])); !slices.Equal(names, []string{"bytes", "duration", "method", "proto", "remote", "request_id", "route", "status"}) {
			t.Errorf("attributes %v", names)
		}
		if log.Has(token) {
			t.Errorf("the log has the token: %s", log)
		}
	}
}

const statusPathOf42 = "/api/v1/audits/42/status"

// A proxy's id is logged; a token, or another text that a client makes up, is not.
func TestAccessLogKeepsNoTokenAsRequestID(t *testing.T) {
	t.Parallel()
	r := get(t, streamPath, "X-Request-Id", aliceToken(t))
	for _, attr := range requestAttrs(r) {
		if attr.Key == "request_id" {
			t.Errorf("request_id %v", attr.Value)
		}
	}
}

// A stream's record is written, and its span ends, when the stream begins, on both kinds of connection; neither prevents hijacking.
func TestStreamIsLoggedAndTracedWhenItBegins(t *testing.T) {
	t.Parallel()
	for _, noHijack := range []bool{false, true} {
		log := new(records)
		spans, trace := tracer()
		sub, states := one(running(1))
		s, _ := run(t, sub, func(c *Config) { log.configure(c); trace(c); c.NoHijack = noHijack })
		conn := dial(t, s)
		readTo(t, conn, "\n\n\r\n")
		testkit.Eventually(t, "the stream's record is written, its span ended", func() bool { return len(log.of(t, "request")) == 1 && len(spans.Ended()) == 1 })
		if got := log.of(t, "request")[0]; got["status"] != 200.0 || got["route"] != streamPath {
			t.Errorf("record %v", got)
		}
		if !noHijack && takenCount(s) != 1 {
			t.Error("the stream was not taken from net/http")
		}
		states.put(ended("completed"))
		readTo(t, conn, lastChunk)
		testkit.Eventually(t, "the stream's end is logged", func() bool { return len(log.of(t, "stream ended")) == 1 })
		span := spans.Ended()[0]
		if got := attributesOf(span); span.Name() != "GET /api/v1/sse/audits/{audit_id}/progress" || got["http.response.status_code"] != "200" {
			t.Errorf("span %s, %v", span.Name(), got)
		}
		if records := log.of(t, "request"); len(records) != 1 || len(spans.Ended()) != 1 {
			t.Errorf("%d records and %d spans, want 1 each: %v", len(records), len(spans.Ended()), records)
		}
	}
}

func TestPanicIsInTheAccessLogAndItsSpan(t *testing.T) {
	t.Parallel()
	log := new(records)
	spans, trace := tracer()
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) {
		log.configure(c)
		trace(c)
		c.Page = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a password, for all we know") })
	})
	func() {
		defer func() { _ = recover() }()
		s.routes().ServeHTTP(newClient(), get(t, "/"))
	}()
	if got := log.of(t, "request"); len(got) != 1 || got[0]["cut"] != true || got[0]["status"] != 0.0 {
		t.Errorf("records %v, want one with cut", got)
	}
	stub := fmt.Sprintf("%+v", tracetest.SpanStubsFromReadOnlySpans(spans.Ended()))
	if len(spans.Ended()) != 1 || spans.Ended()[0].Status().Code != codes.Error || strings.Contains(stub, "password") {
		t.Errorf("spans %s, want one that failed", stub)
	}
}

// Without an access log handlers get net/http's own ResponseWriter.
func TestWithoutAnAccessLogNothingIsWrapped(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) {
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, ok := w.(*client); !ok {
				t.Errorf("the handler gets a %T", w)
			}
		})
	})
	s.routes().ServeHTTP(newClient(), get(t, "/"))
}
