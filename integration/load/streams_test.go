package load

import (
	"fmt"
	"testing"

	"auditstream/integration/harness"
)

// A stream over plain HTTP/1.1 costs a few kilobytes: net/http's goroutines, buffers and request have gone. Measures memory,
// so it is not parallel.
func TestLoadStreamCostsAFewKilobytes(t *testing.T) {
	const streams, audits, most = 5000, 500, 12e3 // bytes of resident memory
	db := harness.NewDatabase(t)
	ids := db.InsertMany(t, audits)
	for _, taken := range []bool{true, false} {
		options := []string{"LOG_LEVEL=info"}
		if !taken {
			options = append(options, "SSE_HIJACK=off")
		}
		i := harness.ServeBinary(t, harness.PlainBinary(t), db.Serve, options...)
		i.WaitReady(t, "up")
		i.View(t, ids[0], nil).Reached(t, 0)
		before := collect(t, i)
		s := newSwarm(t, i, streams, ids)
		s.served(t, 1, 0)
		var each cost
		measure := func() {
			now := collect(t, i)
			each = cost{
				heap: (now.heap - before.heap) / streams, stacks: (now.stacks - before.stacks) / streams,
				resident: (now.resident - before.resident) / streams, goroutines: (now.goroutines - before.goroutines) / streams,
			}
		}
		if measure(); taken {
			harness.Eventually(t, func() error { // what connecting took is given back within seconds
				if measure(); each.resident > most || each.goroutines > 0.1 {
					return fmt.Errorf("a stream costs %.0f bytes of resident memory and %.2f goroutines, want %.0f and none", each.resident, each.goroutines, most)
				}
				return nil
			})
		} else if each.resident < most || each.goroutines < 1.9 {
			t.Errorf("a stream of net/http's costs %.0f bytes and %.2f goroutines: this test would not notice it", each.resident, each.goroutines)
		}
		t.Logf("%d streams, taken from net/http %v: %.1f kB resident each, of which heap %.1f and stacks %.1f; %.2f goroutines",
			streams, taken, each.resident/1e3, each.heap/1e3, each.stacks/1e3, each.goroutines)
		s.leave()
	}
}
