package harness

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// OfAudits takes the feed audits away, which is what a name without a feed means.
var OfAudits = strings.NewReplacer(`{feed="audits"}`, "", `feed="audits",`, "", `,feed="audits"`, "")

// Metric returns the value of a sample, named as in the exposition: auditstream_streams_open, or with its labels.
func (i *Instance) Metric(t testing.TB, name string) float64 {
	t.Helper()
	resp, err := http.Get(i.Admin + "/metrics")
	NoError(t, err)
	for line := range strings.Lines(ReadAll(t, resp.Body)) {
		if rest, ok := strings.CutPrefix(OfAudits.Replace(line), name+" "); ok {
			var value float64
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// WaitMetric waits until a sample satisfies accept.
func (i *Instance) WaitMetric(t testing.TB, name string, accept func(float64) bool) float64 {
	t.Helper()
	var value float64
	Eventually(t, func() error {
		if value = i.Metric(t, name); !accept(value) {
			return fmt.Errorf("%s is %v", name, value)
		}
		return nil
	})
	return value
}

// CollectGarbage has the instance collect twice: what a sync.Pool holds survives the first time.
func (i *Instance) CollectGarbage(t testing.TB) {
	t.Helper()
	for range 2 {
		resp, err := http.Get(i.Admin + "/debug/pprof/heap?gc=1")
		NoError(t, err)
		ReadAll(t, resp.Body)
	}
}

// WantMetric compares the value of a sample.
func (i *Instance) WantMetric(t testing.TB, name string, want float64) {
	t.Helper()
	if got := i.Metric(t, name); got != want {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

// Exactly is for WaitMetric.
func Exactly(n float64) func(float64) bool { return func(v float64) bool { return v == n } }

// AtLeast is for WaitMetric.
func AtLeast(n float64) func(float64) bool { return func(v float64) bool { return v >= n } }

// AtMost is for WaitMetric.
func AtMost(n float64) func(float64) bool { return func(v float64) bool { return v <= n } }

// Metrics of the connection that listens.
const (
	ListenerUp     = "auditstream_listener_up"
	ListenerSilent = `auditstream_listener_failures_total{reason="silent"}`
)

// StreamsOpen is a metric.
const StreamsOpen = "auditstream_streams_open"
