package load

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// Clients that take nothing, next to nothing, or send what nobody asked for: each costs little, is gone within the write
// deadline, and costs the others nothing.
func TestLoadHostileClientsAreCutOffAndCostOthersNothing(t *testing.T) {
	t.Parallel()
	const each, rounds, length = 25, 2, 256 << 10
	db := harness.NewDatabase(t)
	i := harness.ServeBinary(t, harness.PlainBinary(t), db.Serve, "LOG_LEVEL=info")
	i.WaitReady(t, "up")
	ids := db.InsertMany(t, 2)
	heavy, light := ids[0], ids[1]
	latency := harness.NewStopwatch()
	others := i.Crowd(t, 10, []string{light}, latency.Seen)
	heavyViewer := i.View(t, heavy, nil)
	honest := float64(len(others) + 1)

	app := pgtest.Connect(t, db.Admin)
	n := 0
	// step changes the heavy audit, and times a change of the light one.
	step := func() {
		n++
		harness.Exec(t, app, `update audits set total_pages = $1, message = repeat('x', $2) where id = $3`, n, length, heavy)
		latency.Start(n)
		harness.Exec(t, app, `update audits set total_pages = $1 where id = $2`, n, light)
		harness.AllReached(t, others, n)
	}
	gone := func() float64 { return i.Metric(t, `auditstream_streams_ended_total{reason="client gone"}`) }
	for range 10 { // buffers and connections are there
		step()
	}
	idle := collect(t, i)
	var without, with []time.Duration
	var peak cost
	// On a busy machine the first are cut off before memory could be measured while all of them were stuck.
	for round := 0; round < rounds || peak.heap == 0 && round < 4*rounds; round++ {
		latency.Reset()
		for range 40 {
			step()
		}
		without = append(without, latency.Durations()...)

		before := gone()
		hostile(t, i, heavy, each)
		i.WaitMetric(t, harness.StreamsOpen, harness.AtLeast(honest+1))
		latency.Reset()
		start := time.Now()
		for held := 0.0; i.Metric(t, harness.StreamsOpen) > honest; {
			step()
			if open := i.Metric(t, harness.StreamsOpen) - honest; open > held {
				held = open
			} else if open == held && held == 4*each && time.Since(start) > time.Second {
				peak = maxCost(peak, collect(t, i))
			}
			if time.Since(start) > harness.Patience {
				t.Fatalf("%v streams are open, want %v", i.Metric(t, harness.StreamsOpen), honest)
			}
		}
		took := time.Since(start)
		with = append(with, latency.Durations()...)
		t.Logf("round %d: all are cut off after %v", round, took.Round(time.Millisecond))
		if took > 12*time.Second { // filling the buffers, then the 5 s of the write deadline
			t.Errorf("the clients were cut off after %v, want 5 s and a little", took)
		}
		harness.Equal(t, gone()-before, 4*each, "streams ended because the client was gone")
	}
	slices.Sort(without)
	slices.Sort(with)
	alone, beside := without[len(without)/2], with[len(with)/2]
	heap, resident := (peak.heap-idle.heap)/(4*each), (peak.resident-idle.resident)/(4*each)
	t.Logf("median latency of the others %v without, %v with them: %.2f times; a hostile client costs %.1f kB of heap, %.1f kB resident",
		alone, beside, float64(beside)/float64(alone), heap/1e3, resident/1e3)
	if beside > 5*alone+5*time.Millisecond {
		t.Errorf("median latency %v with hostile clients, %v without", beside, alone)
	}
	if peak.heap == 0 {
		t.Error("no memory was measured while all of them were stuck")
	}
	if heap > length { // one event that is stuck on its way; more would be a queue
		t.Errorf("a hostile client costs %.0f kB of heap, want less than one event of %d kB", heap/1e3, length/1000)
	}
	heavyViewer.Reached(t, n)
	i.WaitMetric(t, "go_goroutines", harness.AtMost(idle.goroutines+5))
}

func maxCost(a, b cost) cost {
	return cost{
		heap: max(a.heap, b.heap), stacks: max(a.stacks, b.stacks), resident: max(a.resident, b.resident),
		goroutines: max(a.goroutines, b.goroutines), live: max(a.live, b.live),
	}
}

// hostile opens streams of four kinds of clients, n of each. They are at it until they are cut off.
func hostile(t testing.TB, i *harness.Instance, id string, n int) {
	t.Helper()
	again := "GET /api/v1/sse/audits/" + id + "/progress HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + harness.AliceToken(t) + "\r\n\r\n"
	var clients sync.WaitGroup
	t.Cleanup(clients.Wait) // after RawClient's own, which closes the connections
	for range n {
		i.RawClient(t, id, "") // never reads
		trickling := i.RawClient(t, id, "")
		clients.Go(func() { readTrickling(trickling) })
		sending := i.RawClient(t, id, "\x00\xff garbage \r\n\r\n")
		clients.Go(func() { sendForEver(sending, strings.Repeat("garbage ", 8<<10)) })
		pipelining := i.RawClient(t, id, again)
		clients.Go(func() { sendForEver(pipelining, strings.Repeat(again, 100)) })
	}
}

// readTrickling reads a byte a second until the connection ends.
func readTrickling(conn net.Conn) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for b := make([]byte, 1); ; <-tick.C {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

func sendForEver(conn net.Conn, data string) {
	for {
		if _, err := conn.Write([]byte(data)); err != nil {
			return
		}
	}
}
