package pgnotify

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"auditstream/store"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestEachReadIsASpan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		tb := newTable(running(1, 10))
		broken := false
		h := startHub(t, HubConfig{
			Loader: loaderFunc(func(ctx context.Context, ids []int64) ([]*store.State, error) {
				if broken {
					broken = false
					return nil, errors.New("a password, for all we know")
				}
				return tb.Audits(ctx, ids)
			}),
			Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		})
		wantProgress(t, subscribe(t, h, 1), 10)
		synctest.Wait()
		broken = true
		wantProgress(t, subscribe(t, h, 1), 10)

		want := []codes.Code{codes.Unset, codes.Error, codes.Unset}
		got := spans.Ended()
		if len(got) != len(want) || len(got) != tb.count()+1 {
			t.Fatalf("%d spans for %d reads, one of which failed", len(got), tb.count()+1)
		}
		for k, span := range got {
			if span.Name() != "auditstream.read" || span.Status().Code != want[k] || span.Status().Description == "a password, for all we know" {
				t.Errorf("span %d: %s, %v", k, span.Name(), span.Status())
			}
			if a := span.Attributes(); len(a) != 1 || a[0] != attribute.Int("auditstream.audits", 1) {
				t.Errorf("span %d: attributes %v, want that it reads one audit", k, a)
			}
		}
	})
}

func TestReadsAreNotTracedUnasked(t *testing.T) {
	t.Parallel()
	h, err := NewHub(HubConfig{Loader: newTable()})
	if err != nil {
		t.Fatal(err)
	}
	if _, own := h.cfg.Loader.(*table); !own {
		t.Errorf("reads go through a %T, want nothing between", h.cfg.Loader)
	}
}
