package bench

import (
	"fmt"
	"strings"
	"testing"
)

// mine measures the deliveries to others while one user of a large table asks for all of theirs again and again, beside those without.
// There is no index on the owner, so that each question reads the table.
func (b *bench) mine(t testing.TB, v variant, round int) {
	t.Helper()
	a := b.app(t, v, b.scale.large)
	s := v.start(t, a)
	c := gather(t, s, b.scale.audits, b.scale.audits)
	for _, state := range inTurn([]string{alone, beside}, round) {
		stop := func() int { return 0 }
		if state == beside {
			stop = askForAll(t, s)
		}
		a.run(t, s, b.scale.audits, b.scale.rate, b.scale.load)
		c.arrived(t, a)
		asked := stop()
		delays := a.delays(c.take(t))
		k := Key{Measure: mine99, Unit: "ms", Variant: v.name, State: state, Rows: b.scale.large}
		b.figures.Add(k, Quantile(delays, 0.99))
		t.Logf("%s, %d rows, %s: p99 %.1f ms; all of theirs was asked for %d times", v.name, b.scale.large, state, Quantile(delays, 0.99), asked)
	}
	c.leave(t)
	s.stop(t)
}

// askForAll has one user open a stream of all that is theirs, read the beginning and leave, until it is stopped. stop returns how often.
func askForAll(t testing.TB, s server) (stop func() int) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	asked := 0
	var failure error
	go func() {
		defer close(done)
		for failure == nil {
			select {
			case <-quit:
				return
			default:
			}
			asked++
			_, failure = firstBytes(s, allOfTheirs(s))
		}
	}()
	return func() int {
		close(quit)
		<-done
		if failure != nil {
			t.Fatal(failure)
		}
		return asked
	}
}

func allOfTheirs(s server) []byte {
	_, headers, _ := strings.Cut(string(s.request(0)), "\r\n")
	return fmt.Appendf(nil, "GET /api/v1/sse/audits/progress HTTP/1.1\r\n%s", headers)
}
