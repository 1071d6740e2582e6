// Package testkit is what the tests of several packages share and that needs no other process: checks, tables, a log, waits, metrics, fake
// time, a certificate.
//
// The rule that keeps it right: only tests import it, and it imports nothing of ours, so that the tests of any package can.
package testkit

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Log collects what is logged, as text. Its zero value is empty. Safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// Logger returns a logger to this log, with slog's default level.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// DebugLogger returns a logger to this log that leaves nothing out.
func (l *Log) DebugLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// String returns what was logged since the last Reset.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Count says how often text is in the log.
func (l *Log) Count(text string) int { return strings.Count(l.String(), text) }

// Has says whether each text is in the log.
func (l *Log) Has(texts ...string) bool {
	for _, text := range texts {
		if l.Count(text) == 0 {
			return false
		}
	}
	return true
}

// Lines says how many lines the log has.
func (l *Log) Lines() int { return l.Count("\n") }

// Reset empties the log.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// Patience is the longest wait for what must happen. Only a failing test waits so long.
const Patience = time.Minute

// Eventually waits until check succeeds: for what other goroutines and processes do without a signal. What names it.
func Eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// Metric returns the value of a counter or gauge, or the number of a histogram's observations; with a label's value where there are several.
func Metric(t interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}, registry *prometheus.Registry, name string, label ...string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) == 0 || m.GetLabel()[0].GetValue() == label[0] {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("no metric %s %q", name, label)
	return 0
}

// Bubble is a test or subtest that runs beside others, in fake time.
func Bubble(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, f)
	}
}
