package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"auditstream/internal/pgtest"
)

// From the commit to a client's read may take at most this multiple of what a bare LISTEN connection needs to see the
// same NOTIFY.
const latencyLimit = 4

func TestFaultFreeLatencyIsAFewNotifications(t *testing.T) {
	t.Parallel()
	for try := 1; ; try++ {
		r := measureLatency(t, 100, 10, 300)
		t.Logf("%v", r)
		if r.stream.median <= latencyLimit*r.listen.median {
			return
		}
		if try == 3 { // twice may be what else the machine did
			t.Fatalf("median %v, want at most %d times the bare LISTEN's %v", r.stream.median, latencyLimit, r.listen.median)
		}
	}
}

// BenchmarkLatency reports medians and 99th percentiles in microseconds, of streams and of a bare LISTEN connection
// beside them, and the ratio of the medians.
func BenchmarkLatency(b *testing.B) {
	for _, c := range []struct{ streams, audits int }{{1, 1}, {100, 10}, {100, 1}, {1000, 100}} {
		b.Run(fmt.Sprintf("streams=%d/audits=%d", c.streams, c.audits), func(b *testing.B) {
			r := measureLatency(b, c.streams, c.audits, max(b.N, 200))
			b.ReportMetric(0, "ns/op") // a round includes waiting for all streams: it says nothing
			b.ReportMetric(float64(r.stream.median.Microseconds()), "stream-p50-µs")
			b.ReportMetric(float64(r.stream.p99.Microseconds()), "stream-p99-µs")
			b.ReportMetric(float64(r.listen.median.Microseconds()), "listen-p50-µs")
			b.ReportMetric(float64(r.listen.p99.Microseconds()), "listen-p99-µs")
			b.ReportMetric(float64(r.read.Microseconds()), "read-mean-µs")
			b.ReportMetric(r.ratio(), "ratio")
		})
	}
}

type latencyReport struct {
	streams, audits, updates int
	stream, listen           quantiles
	read                     time.Duration // mean of the server's reads, a part of stream
}

type quantiles struct {
	median, p99 time.Duration
	samples     int
}

func (r latencyReport) ratio() float64 { return float64(r.stream.median) / float64(r.listen.median) }

func (r latencyReport) String() string {
	return fmt.Sprintf("%d updates of %d audits, from COMMIT being sent: %d streams read them after %v (99th %v, %d reads), a bare LISTEN after %v (99th %v): ratio %.2f; the server's read of the row took %v",
		r.updates, r.audits, r.streams, r.stream.median, r.stream.p99, r.stream.samples, r.listen.median, r.listen.p99, r.ratio(), r.read)
}

// measureLatency commits updates one by one and times, for each, when the streams read it and when a bare LISTEN
// connection sees its notification. Both clocks start when COMMIT is sent, and all of them are this process's.
func measureLatency(t testing.TB, streams, audits, updates int) latencyReport {
	t.Helper()
	// PostgreSQL's own settings: the commit includes its fsync, as it does for users.
	db := adopt(t, pgtest.NewServer(t).DSN("postgres"))
	i := launch(t, plainBinary(t), db.Serve, "SSE_POLL_HOT=off") // one update right after the other is a load
	i.waitReady(t, "up")
	ids := db.insertMany(t, audits)
	streamTimes, listenTimes := newStopwatch(), newStopwatch()
	viewers := i.crowd(t, streams, ids, streamTimes.seen)
	for _, v := range viewers {
		v.reached(t, 0)
	}
	heard := listenBare(t, db.Admin)

	app := pgtest.Connect(t, db.Admin)
	const warmUp = 20
	for n := 1; n <= warmUp+updates; n++ {
		id := ids[n%audits]
		tx, err := app.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `update audits set total_pages = $1, progress = $2 where id = $3`, n, n%100, id); err != nil {
			t.Fatal(err)
		}
		streamTimes.start(n)
		listenTimes.started[n] = streamTimes.started[n]
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		listenTimes.samples <- sample{n: n, at: heard(t, id)}
		for k, v := range viewers {
			if ids[k%audits] == id {
				v.reached(t, n)
			}
		}
		if n == warmUp {
			streamTimes.reset()
			listenTimes.reset()
		}
	}
	read := i.metric(t, `auditstream_read_duration_seconds_sum{result="ok"}`) / i.metric(t, `auditstream_read_duration_seconds_count{result="ok"}`)
	return latencyReport{streams, audits, updates, streamTimes.quantiles(t), listenTimes.quantiles(t), time.Duration(read * float64(time.Second))}
}

func (w *stopwatch) quantiles(t testing.TB) quantiles {
	t.Helper()
	all := w.durations()
	if len(all) == 0 {
		t.Fatal("nothing was measured")
	}
	return quantiles{all[len(all)/2], all[len(all)*99/100], len(all)}
}

// listenBare listens on a connection of its own. The function it returns waits for the notification of an id and says
// when it came.
func listenBare(t testing.TB, dsn string) func(t testing.TB, id string) time.Time {
	t.Helper()
	conn := pgtest.Connect(t, dsn)
	if _, err := conn.Exec(t.Context(), "listen auditstream"); err != nil {
		t.Fatal(err)
	}
	type arrival struct {
		id  string
		at  time.Time
		err error
	}
	arrivals := make(chan arrival, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			n, err := conn.WaitForNotification(ctx)
			at := time.Now()
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					arrivals <- arrival{err: err}
				}
				return
			}
			if _, err := strconv.Atoi(n.Payload); err == nil { // not a canary
				arrivals <- arrival{id: n.Payload, at: at}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return func(t testing.TB, id string) time.Time {
		t.Helper()
		select {
		case a := <-arrivals:
			if a.err != nil || a.id != id {
				t.Fatalf("notification of %q, error %v, want %s", a.id, a.err, id)
			}
			return a.at
		case <-time.After(patience):
			t.Fatal("no notification on a bare connection")
		}
		panic("unreachable")
	}
}
