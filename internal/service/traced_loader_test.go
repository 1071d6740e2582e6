package service

import (
	"context"
	"errors"
	"testing"

	"auditstream/internal/store"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

type loaderFunc func(ctx context.Context, keys []store.Key) ([]*store.State, error)

func (f loaderFunc) Rows(ctx context.Context, keys []store.Key) ([]*store.State, error) {
	return f(ctx, keys)
}

func TestEachReadIsASpan(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	var failure error
	loader := traced(loaderFunc(func(context.Context, []store.Key) ([]*store.State, error) { return nil, failure }),
		sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	const secret = "a password, for all we know"
	for _, err := range []error{nil, errors.New(secret), nil} {
		failure = err
		if _, got := loader.Rows(t.Context(), []store.Key{"1"}); !errors.Is(got, err) {
			t.Errorf("%v, want %v", got, err)
		}
	}
	want := []codes.Code{codes.Unset, codes.Error, codes.Unset}
	got := spans.Ended()
	if len(got) != len(want) {
		t.Fatalf("%d spans for %d reads", len(got), len(want))
	}
	for k, span := range got {
		if span.Name() != "auditstream.read" || span.Status().Code != want[k] || span.Status().Description == secret {
			t.Errorf("span %d: %s, %v", k, span.Name(), span.Status())
		}
		if a := span.Attributes(); len(a) != 1 || a[0] != attribute.Int("auditstream.audits", 1) {
			t.Errorf("span %d: attributes %v, want that it reads one audit", k, a)
		}
	}
}

func TestReadsAreNotTracedUnasked(t *testing.T) {
	t.Parallel()
	if _, own := traced(loaderFunc(nil), nil).(loaderFunc); !own {
		t.Error("reads go through something although there is no tracer")
	}
}
