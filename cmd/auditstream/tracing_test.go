package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestTracingWanted(t *testing.T) {
	t.Parallel()
	const collector = "http://127.0.0.1:4318"
	for name, tt := range map[string]struct {
		env  map[string]string
		want bool
		says []string // of the error
	}{
		"nothing":               {},
		"a name alone":          {env: map[string]string{"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
		"asked for":             {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, want: true},
		"a collector":           {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector}, want: true},
		"a collector of traces": {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector + "/v1/traces"}, want: true},
		"http/protobuf":         {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, want: true},
		"the traces' protocol":  {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, want: true},
		"none":                  {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_EXPORTER": "none"}},
		"disabled":              {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}},
		"not disabled":          {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, want: true},
		"another exporter":      {env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, says: []string{"OTEL_TRACES_EXPORTER", `"zipkin"`, "otlp or none"}},
		"grpc":                  {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, says: []string{"OTEL_EXPORTER_OTLP_PROTOCOL", `"grpc"`, "http/protobuf"}},
		"grpc for traces":       {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, says: []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", `"grpc"`, "http/protobuf"}},
		"no URL":                {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, says: []string{"OTEL_EXPORTER_OTLP_ENDPOINT", `"collector:4318"`, "http://127.0.0.1:4318"}},
		"a password":            {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@collector"}, says: []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"}},
	} {
		got, err := tracingWanted(func(name string) string { return tt.env[name] })
		if got != tt.want || (err != nil) != (tt.says != nil) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tt.want)
			continue
		}
		for _, text := range tt.says {
			if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: error %q, want one with %s and without a password", name, err, text)
			}
		}
	}
}

// brokenExporter fails while it has an error.
type brokenExporter struct {
	*tracetest.InMemoryExporter
	err error
}

func (e *brokenExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return e.err }

func TestAnOutageOfTheCollectorIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	broken := &brokenExporter{err: errors.New("connection refused")}
	out := &outages{SpanExporter: broken, logger: slog.New(slog.NewTextHandler(&log, nil))}
	for range 2 {
		for range 3 {
			if err := out.ExportSpans(t.Context(), nil); err != nil {
				t.Errorf("error %v, which the SDK would log each time", err)
			}
		}
		broken.err = nil
	}
	if failed, again := strings.Count(log.String(), "cannot be sent"), strings.Count(log.String(), "sent again"); failed != 1 || again != 1 {
		t.Errorf("%d outages and %d ends logged, want one each:\n%s", failed, again, log.String())
	}
}

// stuckExporter is a collector that never answers, whatever time it is given, until released is closed.
type stuckExporter struct {
	*tracetest.InMemoryExporter
	released chan struct{}
}

func (e stuckExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	<-e.released
	return nil
}

// A collector that hangs may delay the program's end by one second, and no more.
func TestStuckCollectorHoldsUpTheEndForOneSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		stuck := stuckExporter{tracetest.NewInMemoryExporter(), make(chan struct{})}
		sdk := sdktrace.NewTracerProvider(sdktrace.WithBatcher(stuck))
		_, span := sdk.Tracer("").Start(t.Context(), "last")
		span.End()
		start := time.Now()
		endTracing(t.Context(), sdk, slog.New(slog.NewTextHandler(&log, nil)))
		if took := time.Since(start); took != time.Second {
			t.Errorf("the end took %s, want 1s", took)
		}
		if !strings.Contains(log.String(), "the last traces could not be sent") {
			t.Errorf("log %q, want that traces are lost", log.String())
		}
		close(stuck.released)
	})
}

// The SDK would print a header that it cannot parse.
func TestSettingsThatTheSDKDoesNotUnderstandAreNotShown(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	sdk := logr.New(sdkLog{slog.New(slog.NewTextHandler(&log, nil))})
	sdk.WithValues("input", "hunter2").Error(errors.New("hunter2"), "parse headers", "input", "hunter2")
	if !strings.Contains(log.String(), "parse headers") || strings.Contains(log.String(), "hunter2") {
		t.Errorf("log %q", log.String())
	}
}
