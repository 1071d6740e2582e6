package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"auditstream/internal/pgtest"
)

const (
	streamsOpen = "auditstream_streams_open"
	clientsGone = `auditstream_streams_ended_total{reason="client gone"}`
)

// Clients that never read are cut off, and until then cost the others nothing.
func TestFaultStuckClientsAreCutOffAndCostOthersNothing(t *testing.T) {
	t.Parallel()
	const stuck, length = 50, 256 << 10
	db := newDatabase(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	ids := db.insertMany(t, 2)
	heavy, light := ids[0], ids[1]
	latency := newStopwatch()
	others := i.crowd(t, 10, []string{light}, latency.seen)
	heavyViewer := i.view(t, heavy, nil)
	for _, v := range others {
		v.reached(t, 0)
	}

	app := pgtest.Connect(t, db.Admin)
	n := 0
	// step changes the heavy audit, and times a change of the light one.
	step := func() {
		n++
		exec1(t, app, `update audits set total_pages = $1, message = repeat('x', $2) where id = $3`, n, length, heavy)
		latency.start(n)
		exec1(t, app, `update audits set total_pages = $1 where id = $2`, n, light)
		for _, v := range others {
			v.reached(t, n)
		}
	}
	for range 60 {
		step()
	}
	before := latency.median()
	memory := i.metric(t, "process_resident_memory_bytes")

	for range stuck {
		i.rawClient(t, heavy, "")
	}
	eventually(t, func() error { // on a busy machine the first is cut off before the last is there
		if open, gone := i.metric(t, streamsOpen), i.metric(t, clientsGone); open+gone < stuck+11 {
			return fmt.Errorf("%v streams are open and %v were cut off, want %d in all", open, gone, stuck+11)
		}
		return nil
	})
	latency.reset()
	start, peak, during := time.Now(), memory, 0
	for i.metric(t, streamsOpen) > 11 {
		step()
		during++
		peak = max(peak, i.metric(t, "process_resident_memory_bytes"))
		if time.Since(start) > patience {
			t.Fatalf("%v streams are open, want 11", i.metric(t, streamsOpen))
		}
	}
	took := time.Since(start)
	with := latency.median()
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
	heavyViewer.reached(t, n)
	eventually(t, func() error { // a stream is counted as ended after it is no longer counted as open
		if got := i.metric(t, clientsGone); got != stuck {
			return fmt.Errorf("%v streams ended because the client was gone, want %d", got, stuck)
		}
		return nil
	})
}

func TestFaultVanishedClientsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	i := serve(t, db.Serve, "SSE_HEARTBEAT_SECONDS=1")
	i.waitReady(t, "up")
	id := db.insertMany(t, 1)[0]
	i.view(t, id, nil).reached(t, 0)
	goroutines := i.metric(t, "go_goroutines")

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
		ended := i.metric(t, clientsGone)
		for range clients {
			conn := i.rawClient(t, id, how.extra)
			// The first bytes of the answer: the stream is open.
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetLinger(how.linger); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, func() error {
			open, gone := i.metric(t, streamsOpen), i.metric(t, clientsGone)-ended
			if open != 1 || gone != clients {
				return fmt.Errorf("%s: %v streams open, %v ended, want 1 and %d", how.name, open, gone, clients)
			}
			return nil
		})
	}
	i.waitMetric(t, "go_goroutines", atMost(goroutines+5))
	i.waitMetric(t, "auditstream_watched_audits", atMost(1))
}

// Clients that come and go all the time, while the audit changes.
func TestFaultChurnLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	ids := db.insertMany(t, 5)
	i.view(t, ids[0], nil).reached(t, 0)
	goroutines := i.metric(t, "go_goroutines")
	for round := range 10 {
		viewers := i.crowd(t, 40, ids, nil)
		db.set(t, round+1)
		for k, v := range viewers {
			if k%2 == 0 {
				v.reached(t, round+1)
			}
			v.cancel()
		}
	}
	i.waitMetric(t, streamsOpen, atMost(1))
	i.waitMetric(t, "go_goroutines", atMost(goroutines+5))
}

// stopwatch takes the times from the change of a state to its arrival.
type stopwatch struct {
	samples chan sample
	started map[int]time.Time
}

type sample struct {
	n  int
	at time.Time
}

func newStopwatch() *stopwatch {
	return &stopwatch{samples: make(chan sample, 200_000), started: make(map[int]time.Time)}
}

func (w *stopwatch) start(n int) { w.started[n] = time.Now() }

func (w *stopwatch) seen(p progress, at time.Time) {
	if p.TotalPages != nil {
		w.samples <- sample{*p.TotalPages, at}
	}
}

// durations are those since the last call, in order; w.start must not run at the same time.
func (w *stopwatch) durations() []time.Duration {
	var all []time.Duration
	for {
		select {
		case s := <-w.samples:
			if from, ok := w.started[s.n]; ok {
				all = append(all, s.at.Sub(from))
			}
		default:
			slices.Sort(all)
			return all
		}
	}
}

func (w *stopwatch) reset() { w.durations() }

func (w *stopwatch) median() time.Duration {
	all := w.durations()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

// A client that reads slowly, but does, gets an event that takes it longer than a client may take nothing, and the end after it.
func TestS11SlowClientThatReadsIsNotCutOff(t *testing.T) {
	t.Parallel()
	const length = 1_000_000
	db := newDatabase(t)
	id := db.insertMany(t, 1)[0]
	db.sql(t, fmt.Sprintf(`update audits set status = 'running', message = repeat('x', %d) where id = %s`, length, id))
	for _, hijack := range []string{"on", "off"} {
		t.Run("SSE_HIJACK="+hijack, func(t *testing.T) {
			t.Parallel()
			i := serve(t, db.Serve, "SSE_HIJACK="+hijack)
			i.waitReady(t, "up")
			conn := i.rawClient(t, id, "")
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
			if gone := i.metric(t, clientsGone); gone > 0 {
				t.Errorf("%v streams were cut off", gone)
			}
		})
	}
}
