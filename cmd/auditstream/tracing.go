package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// tracingEnd is how long the program's end may wait for a collector that does not answer. If it is shorter, the last spans may be lost.
const tracingEnd = time.Second

// tracing returns the provider of spans, nil if OpenTelemetry's variables ask for none, and a function that sends the last spans at the end.
// The SDK itself reads the other variables. Its queue drops spans when the collector is slow, and never blocks.
func tracing(ctx context.Context, logger *slog.Logger) (provider trace.TracerProvider, end func(), err error) {
	on, err := tracingWanted(os.Getenv)
	if err != nil {
		return nil, nil, usageError{err}
	}
	if !on {
		return nil, func() {}, nil
	}
	otel.SetLogger(logr.New(sdkLog{logger}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("OpenTelemetry", "error", err) }))
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "auditstream"), attribute.String("service.version", version())),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // last, so that it overrides the others
	)
	if err != nil {
		return nil, nil, usageError{errors.New("OTEL_RESOURCE_ATTRIBUTES cannot be read (not shown); give key=value pairs, percent-encoded, with commas between them")}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)}
	}
	out := &outages{SpanExporter: exporter, logger: logger}
	sdk := sdktrace.NewTracerProvider(sdktrace.WithBatcher(out), sdktrace.WithResource(about))
	return sdk, func() { endTracing(context.WithoutCancel(ctx), sdk, logger) }, nil
}

// endTracing sends the spans in the queue, and gives up after tracingEnd.
func endTracing(ctx context.Context, sdk *sdktrace.TracerProvider, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, tracingEnd)
	defer cancel()
	if err := sdk.Shutdown(ctx); err != nil {
		logger.Warn("the last traces could not be sent", "error", err)
	}
}

// tracingWanted reports whether the variables ask for tracing, by the rules of OpenTelemetry's specification.
func tracingWanted(getenv func(string) string) (bool, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	endpoint := cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); {
	case exporter == "none", exporter == "" && endpoint == "":
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER: unknown exporter %q; give otlp or none", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		protocol := getenv(name)
		if protocol == "http/protobuf" {
			break // the first variable that is set decides
		}
		if protocol != "" {
			return false, fmt.Errorf("%s: unsupported protocol %q; give http/protobuf, which a collector has on port 4318", name, protocol)
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if err := checkEndpoint(name, getenv(name)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// checkEndpoint returns an error for a wrong URL, which the SDK would only log, and for a URL with a password, which the SDK's export errors
// would show.
func checkEndpoint(name, text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if strings.Contains(text, "@") || err != nil {
		return fmt.Errorf("%s: no URL, or one with a user (not shown, it may hold a password); give one like http://127.0.0.1:4318, and secrets in OTEL_EXPORTER_OTLP_HEADERS", name)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("%s: %q is no http or https URL with a host; give one like http://127.0.0.1:4318", name, text)
	}
	return nil
}

// outages logs when exports begin to fail and when they work again, not each failure.
type outages struct {
	sdktrace.SpanExporter
	logger *slog.Logger
	failed atomic.Bool
}

func (o *outages) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := o.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !o.failed.Swap(true):
		o.logger.Warn("traces cannot be sent and are dropped; all else goes on", "error", err)
	case err == nil && o.failed.Swap(false):
		o.logger.Info("traces are sent again")
	}
	return nil
}

// sdkLog is the SDK's logger. It logs which kind of setting the SDK could not read, but not its value, which may be a header with a secret.
type sdkLog struct{ logger *slog.Logger }

func (l sdkLog) Error(_ error, message string, _ ...any) {
	l.logger.Warn("OpenTelemetry: a variable OTEL_* is not understood and ignored (not shown, it may hold a secret)", "while", message)
}

func (sdkLog) Init(logr.RuntimeInfo)            {}
func (sdkLog) Enabled(int) bool                 { return false }
func (sdkLog) Info(int, string, ...any)         {}
func (l sdkLog) WithValues(...any) logr.LogSink { return l }
func (l sdkLog) WithName(string) logr.LogSink   { return l }
