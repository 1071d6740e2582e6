package harness

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Patience bounds every wait for something that must happen.
const Patience = time.Minute

// Eventually polls until check succeeds: for what another process does and does not announce. A check may start psql or read all metrics, so
// who has waited for long asks more seldom.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	Again(t, 100*time.Millisecond, check)
}

// Again is Eventually for checks that do something, with a pause of most at most between them.
func Again(t testing.TB, most time.Duration, check func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		waited := time.Since(start)
		if waited > Patience {
			t.Fatal(err)
		}
		<-time.After(min(max(waited/10, 10*time.Millisecond), most))
	}
}

// Becomes waits until a value is as wanted; the rest says of what it is.
func Becomes[T comparable](t testing.TB, value func() T, want T, of ...any) {
	t.Helper()
	Eventually(t, func() error {
		if got := value(); got != want {
			return fmt.Errorf("%sgot\n%v\nwant\n%v", fmt.Sprintln(of...), got, want)
		}
		return nil
	})
}

// WaitIn waits until a text has all of some parts.
func WaitIn(t testing.TB, text func() string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		Eventually(t, func() error {
			if got := text(); !strings.Contains(got, part) {
				return fmt.Errorf("no %q in\n%.4000s", part, got)
			}
			return nil
		})
	}
}

// Measure measures until a measurement is as it must be, three times at most: the machine may stand still during one, and what is
// really slow is so each time.
func Measure(t testing.TB, measure func() error) {
	t.Helper()
	const times = 3
	for n := 1; ; n++ {
		err := measure()
		if err == nil || t.Failed() {
			return
		}
		if n == times {
			t.Errorf("measured %d times, the last time: %v", times, err)
			return
		}
		t.Logf("measured once more, because %v", err)
	}
}

// How soon a change must be shown.
const (
	// Promptly is how soon a change is shown once LISTEN is back.
	Promptly = time.Second
	// WithinNet is how late the safety net of 10 s may be.
	WithinNet = 11 * time.Second
)
