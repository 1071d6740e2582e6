package faults

import (
	"fmt"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

const clientsGone = `auditstream_streams_ended_total{reason="client gone"}`

// Clients that never read are cut off, and until then cost the others nothing.
func TestFaultStuckClientsAreCutOffAndCostOthersNothing(t *testing.T) {
	t.Parallel()
	const stuck, length = 50, 256 << 10
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	ids := db.InsertMany(t, 2)
	heavy, light := ids[0], ids[1]
	latency := harness.NewStopwatch()
	others := i.Crowd(t, 10, []string{light}, latency.Seen)
	heavyViewer := i.View(t, heavy, nil)
	for _, v := range others {
		v.Reached(t, 0)
	}

	app := pgtest.Connect(t, db.Admin)
	n := 0
	// step changes the heavy audit, and times a change of the light one.
	step := func() {
		n++
		harness.Exec(t, app, `update audits set total_pages = $1, message = repeat('x', $2) where id = $3`, n, length, heavy)
		latency.Start(n)
		harness.Exec(t, app, `update audits set total_pages = $1 where id = $2`, n, light)
		for _, v := range others {
			v.Reached(t, n)
		}
	}
	for range 60 {
		step()
	}
	before := latency.Median()
	memory := i.Metric(t, "process_resident_memory_bytes")

	for range stuck {
		i.RawClient(t, heavy, "")
	}
	harness.Eventually(t, func() error { // on a busy machine the first is cut off before the last is there
		if open, gone := i.Metric(t, harness.StreamsOpen), i.Metric(t, clientsGone); open+gone < stuck+11 {
			return fmt.Errorf("%v streams are open and %v were cut off, want %d in all", open, gone, stuck+11)
		}
		return nil
	})
	latency.Reset()
	start, peak, during := time.Now(), memory, 0
	for i.Metric(t, harness.StreamsOpen) > 11 {
		step()
		during++
		peak = max(peak, i.Metric(t, "process_resident_memory_bytes"))
		if time.Since(start) > harness.Patience {
			t.Fatalf("%v streams are open, want 11", i.Metric(t, harness.StreamsOpen))
		}
	}
	took := time.Since(start)
	with := latency.Median()
	t.Logf("stuck clients gone after %v and %d updates; median latency %v without, %v with them; memory %.0f MB before, %.0f MB at most",
		took.Round(time.Millisecond), during, before, with, memory/1e6, peak/1e6)
	if took > 12*time.Second { // filling the buffers, then the 5 s of the write deadline
		t.Errorf("the stuck clients were cut off after %v, want 5 s and a little", took)
	}
	if with > 10*before+20*time.Millisecond {
		t.Errorf("median latency %v with stuck clients, %v without", with, before)
	}
	if peak > memory+150e6 {
		t.Errorf("resident memory grew from %.0f to %.0f MB", memory/1e6, peak/1e6)
	}
	heavyViewer.Reached(t, n)
	harness.Eventually(t, func() error { // a stream is counted as ended after it is no longer counted as open
		if got := i.Metric(t, clientsGone); got != stuck {
			return fmt.Errorf("%v streams ended because the client was gone, want %d", got, stuck)
		}
		return nil
	})
}

func TestFaultVanishedClientsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve, "SSE_HEARTBEAT_SECONDS=1")
	i.WaitReady(t, "up")
	id := db.InsertMany(t, 1)[0]
	i.View(t, id, nil).Reached(t, 0)
	goroutines := i.Metric(t, "go_goroutines")

	for _, how := range []struct {
		name   string
		extra  string // bytes after the request, which keep net/http from noticing the end of the connection
		linger int
	}{
		{"closed", "", -1},
		{"reset", "", 0},
		{"closed, unnoticed while idle", "x", -1},
		{"reset, unnoticed while idle", "x", 0},
	} {
		const clients = 50
		ended := i.Metric(t, clientsGone)
		for range clients {
			conn := i.RawClient(t, id, how.extra)
			// The first bytes of the answer: the stream is open.
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			harness.NoError(t, conn.SetLinger(how.linger))
			harness.NoError(t, conn.Close())
		}
		harness.Eventually(t, func() error {
			open, gone := i.Metric(t, harness.StreamsOpen), i.Metric(t, clientsGone)-ended
			if open != 1 || gone != clients {
				return fmt.Errorf("%s: %v streams open, %v ended, want 1 and %d", how.name, open, gone, clients)
			}
			return nil
		})
	}
	i.WaitMetric(t, "go_goroutines", harness.AtMost(goroutines+5))
	i.WaitMetric(t, "auditstream_watched_audits", harness.AtMost(1))
}

// Clients that come and go all the time, while the audit changes.
func TestFaultChurnLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	ids := db.InsertMany(t, 5)
	i.View(t, ids[0], nil).Reached(t, 0)
	goroutines := i.Metric(t, "go_goroutines")
	for round := range 10 {
		viewers := i.Crowd(t, 40, ids, nil)
		db.SetAll(t, round+1)
		for k, v := range viewers {
			if k%2 == 0 {
				v.Reached(t, round+1)
			}
			v.Cancel()
		}
	}
	i.WaitMetric(t, harness.StreamsOpen, harness.AtMost(1))
	i.WaitMetric(t, "go_goroutines", harness.AtMost(goroutines+5))
}

// A client that reads slowly, but does, gets an event that takes it longer than a client may take nothing, and the end after it.
func TestS11SlowClientThatReadsIsNotCutOff(t *testing.T) {
	t.Parallel()
	const length = 1_000_000
	db := harness.NewDatabase(t)
	id := db.InsertMany(t, 1)[0]
	db.SQL(t, fmt.Sprintf(`update audits set status = 'running', message = repeat('x', %d) where id = %s`, length, id))
	for _, hijack := range []string{"on", "off"} {
		t.Run("SSE_HIJACK="+hijack, func(t *testing.T) {
			t.Parallel()
			i := harness.Serve(t, db.Serve, "SSE_HIJACK="+hijack)
			i.WaitReady(t, "up")
			conn := i.RawClient(t, id, "")
			start, got := time.Now(), 0
			piece := make([]byte, 12<<10)
			for got < length { // 120 kB a second at most: the pause is what makes it slow, and waits for nothing
				n, err := conn.Read(piece)
				if err != nil {
					t.Fatalf("after %v and %d bytes: %v", time.Since(start), got, err)
				}
				got += n
				time.Sleep(time.Duration(n) * time.Second / 120_000)
			}
			if took := time.Since(start); took < 7*time.Second {
				t.Errorf("it took %v: the test shows nothing", took)
			}
			if gone := i.Metric(t, clientsGone); gone > 0 {
				t.Errorf("%v streams were cut off", gone)
			}
		})
	}
}
