package harness

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/internal/pgtest"
)

// Stopwatch takes the times from the change of a state to its arrival.
type Stopwatch struct {
	Samples chan Sample
	Started map[int]time.Time
}

// Sample is a state that was seen, and when.
type Sample struct {
	N  int
	At time.Time
}

// NewStopwatch is one that nothing was measured with.
func NewStopwatch() *Stopwatch {
	return &Stopwatch{Samples: make(chan Sample, 200_000), Started: make(map[int]time.Time)}
}

// Start is called just before state n is written.
func (w *Stopwatch) Start(n int) { w.Started[n] = time.Now() }

// Seen is called when a client sees a state.
func (w *Stopwatch) Seen(p Progress, at time.Time) {
	if p.TotalPages != nil {
		w.Samples <- Sample{*p.TotalPages, at}
	}
}

// Durations are those since the last call, in order; Start must not run at the same time.
func (w *Stopwatch) Durations() []time.Duration {
	var all []time.Duration
	for {
		select {
		case s := <-w.Samples:
			if from, ok := w.Started[s.N]; ok {
				all = append(all, s.At.Sub(from))
			}
		default:
			slices.Sort(all)
			return all
		}
	}
}

// Reset forgets what was measured.
func (w *Stopwatch) Reset() { w.Durations() }

// Median is that of what was measured since the last call; 0 if that is nothing.
func (w *Stopwatch) Median() time.Duration {
	all := w.Durations()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

// Quantiles are what is said of many durations.
type Quantiles struct {
	Median, P99 time.Duration
	Samples     int
}

// Quantiles are those of what was measured since the last call.
func (w *Stopwatch) Quantiles(t testing.TB) Quantiles {
	t.Helper()
	all := w.Durations()
	if len(all) == 0 {
		t.Fatal("nothing was measured")
	}
	return Quantiles{all[len(all)/2], all[len(all)*99/100], len(all)}
}

// ListenBare listens on a connection of its own. The function it returns waits for the next notification that begins so and is no canary,
// which must be the one that is wanted, and says when it came.
func ListenBare(t testing.TB, dsn, prefix string) func(t testing.TB, want string) time.Time {
	t.Helper()
	conn := pgtest.Connect(t, dsn)
	Exec(t, conn, "listen auditstream")
	type arrival struct {
		payload string
		at      time.Time
	}
	arrivals := make(chan arrival, 10_000)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			n, err := conn.WaitForNotification(ctx)
			at := time.Now()
			if err != nil {
				return // who waits for one more sees that none comes
			}
			if strings.HasPrefix(n.Payload, prefix) && !strings.HasPrefix(n.Payload, "!") {
				arrivals <- arrival{n.Payload, at}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return func(t testing.TB, want string) time.Time {
		t.Helper()
		select {
		case a := <-arrivals:
			if a.payload != want {
				t.Fatalf("%q was heard, want %q", a.payload, want)
			}
			return a.at
		case <-time.After(Patience):
			t.Fatalf("%q was not heard", want)
			return time.Time{}
		}
	}
}
