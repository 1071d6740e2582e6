package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// together is how many clients connect at a time where first events are measured.
var together = []int{1, 16, 64}

func firstEvent(n int) string {
	if n == 1 {
		return "connect to first event, alone, median"
	}
	return fmt.Sprintf("connect to first event, %d at a time, median", n)
}

// firstEvents measures how long clients wait for their first event, alone and with others who come at the same time.
func (b *bench) firstEvents(t testing.TB, v variant) {
	t.Helper()
	a := b.app(t, v, b.scale.audits)
	s := v.start(t, a)
	defer s.stop(t)
	for _, n := range together {
		b.comeAndGo(t, s, n, max(b.scale.firsts/10, n)) // not measured: the server has just begun
		k := Key{Measure: firstEvent(n), Unit: "ms", Variant: v.name, Rows: b.scale.audits}
		b.figures.Add(k, Quantile(b.comeAndGo(t, s, n, b.scale.firsts), 0.5))
	}
}

// comeAndGo has visits made, n at a time, and returns how long each took to its first event, in milliseconds.
func (b *bench) comeAndGo(t testing.TB, s server, n, visits int) []float64 {
	t.Helper()
	took := make([]float64, visits)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			for k := w; k < visits && errs[w] == nil; k += n {
				took[k], errs[w] = visit(s, k%b.scale.audits)
			}
		})
	}
	wg.Wait()
	harness.NoError(t, errors.Join(errs...))
	return took
}

// visit connects and reads until the first event.
func visit(s server, audit int) (ms float64, err error) { return firstBytes(s, s.request(audit)) }

// firstBytes sends a request, reads until the first event, and leaves. It returns how long that took.
func firstBytes(s server, request []byte) (ms float64, err error) {
	began := time.Now()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.port()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(deliveryPatience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	var answer []byte
	for buf := make([]byte, 4096); !bytes.Contains(answer, []byte("\ndata: ")); {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, fmt.Errorf("after %q: %w", answer, err)
		}
		answer = append(answer, buf[:n]...)
	}
	return float64(time.Since(began)) / float64(time.Millisecond), nil
}
