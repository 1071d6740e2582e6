package faults

import (
	"fmt"
	"testing"
	"time"

	"auditstream/integration/harness"
)

const clientsGone = `auditstream_streams_ended_total{reason="client gone"}`

func TestFaultVanishedClientsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	db, i := harness.ServeNew(t, "SSE_HEARTBEAT_SECONDS=1")
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
	db, i := harness.ServeNew(t)
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
			i := harness.ServeReady(t, db.Serve, "SSE_HIJACK="+hijack)
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
