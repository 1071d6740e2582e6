package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
)

func gathered(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	testkit.NoError(t, err)
	var b strings.Builder
	for _, f := range families {
		b.WriteString(f.String())
	}
	return b.String()
}

func TestQueueUsageIsReadOnceForManyScrapes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads, usage := 0, 0.25
		reg := prometheus.NewRegistry()
		reg.MustRegister(newQueueUsage(func(context.Context) (float64, error) { reads++; return usage, nil }, func() bool { return false }))
		for range 3 {
			if got := gathered(t, reg); !strings.Contains(got, "value:0.25") {
				t.Errorf("metrics %q, want 0.25", got)
			}
		}
		usage = 0.5
		time.Sleep(queueFresh)
		if got := gathered(t, reg); !strings.Contains(got, "value:0.5") || reads != 2 {
			t.Errorf("metrics %q after %d reads, want 0.5 after 2", got, reads)
		}
	})
}

func TestQueueUsageIsAbsentWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads, away := 0, true
		reg := prometheus.NewRegistry()
		reg.MustRegister(newQueueUsage(func(ctx context.Context) (float64, error) {
			reads++
			if !away {
				return 0.25, nil
			}
			<-ctx.Done() // like a database that does not answer
			return 0, errors.New("away")
		}, func() bool { return true }))
		start := time.Now()
		for range 3 {
			testkit.Equal(t, gathered(t, reg), "", "metrics")
		}
		if waited := time.Since(start); reads != 1 || waited != queueTimeout {
			t.Errorf("3 scrapes waited %v for %d reads, want %v for one", waited, reads, queueTimeout)
		}
		away = false
		time.Sleep(queueFresh)
		if got := gathered(t, reg); !strings.Contains(got, "value:0.25") {
			t.Errorf("metrics %q, want 0.25 again", got)
		}
	})
}

// Scrapes of metrics kept a database awake that suspends when it is idle.
func TestU22QueueUsageIsReadRarelyWhileNobodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		reg := prometheus.NewRegistry()
		reg.MustRegister(newQueueUsage(func(context.Context) (float64, error) { reads++; return 0.25, nil }, func() bool { return true }))
		for start := time.Now(); time.Since(start) < 10*queueIdle; time.Sleep(15 * time.Second) {
			gathered(t, reg)
		}
		if reads != 10 {
			t.Errorf("%d reads in %v, want 10", reads, 10*queueIdle)
		}
	})
}
