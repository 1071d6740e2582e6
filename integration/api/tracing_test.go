package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"auditstream/integration/harness"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is what OTLP/HTTP is sent to.
type collector struct {
	*httptest.Server
	mu      sync.Mutex
	service string
	spans   []*tracepb.Span
	refused []string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var data tracepb.TracesData // on the wire the same as the request, whose package links all of gRPC
	if err == nil {
		err = proto.Unmarshal(body, &data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Key") != "a b" {
		c.refused = append(c.refused, fmt.Sprintf("%s, key %q: %v", r.URL.Path, r.Header.Get("X-Key"), err))
	}
	for _, resource := range data.ResourceSpans {
		for _, attribute := range resource.Resource.Attributes {
			if attribute.Key == "service.name" {
				c.service = attribute.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
}

// has reports which of the names no span has yet.
func (c *collector) has(names ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		found := false
		for _, span := range c.spans {
			found = found || span.Name == name
		}
		if !found {
			return fmt.Errorf("no span %q among %d; refused: %v", name, len(c.spans), c.refused)
		}
	}
	return nil
}

const statusSpan = "GET /api/v1/audits/{audit_id}/status"

func TestTracing(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	c := newCollector(t)
	i := harness.Serve(t, db.Serve, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20b", "OTEL_BSP_SCHEDULE_DELAY=100")
	i.Shown(t, "1", harness.AliceToken(t))
	i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1"))
	harness.Eventually(t, func() error {
		return c.has(statusSpan, "GET /api/v1/sse/audits/{audit_id}/progress", "auditstream.read")
	})
	c.mu.Lock()
	if text := fmt.Sprint(c.spans); strings.Contains(text, "eyJ") || strings.Contains(text, "alice") || c.service != "auditstream" || c.refused != nil {
		t.Errorf("service %q, refused %v, spans %s", c.service, c.refused, text)
	}
	c.mu.Unlock()
}

// What the queue still holds at the stop is sent.
func TestTracingEndsWithTheLastSpans(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	c := newCollector(t)
	i := harness.Serve(t, db.Serve, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20b", "OTEL_BSP_SCHEDULE_DELAY=3600000",
		"OTEL_SERVICE_NAME=progress")
	i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1"))
	i.Stop(t)
	if err := c.has(statusSpan, "auditstream.read"); err != nil || c.service != "progress" {
		t.Errorf("service %q, %v", c.service, err)
	}
}
