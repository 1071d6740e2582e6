package load

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// Everybody comes back at once after a restart: all are served, by few reads, and when they have gone nothing is left of
// them. Counts reads and memory, so it is not parallel.
func TestLoadFiveThousandReconnectAtOnce(t *testing.T) {
	const audits, few, many = 50, 500, 5000
	server := pgtest.NewServer(t, func(c *localpg.Config) {
		c.Settings = map[string]string{"fsync": "off", "shared_preload_libraries": "pg_stat_statements"}
	})
	db := harness.Adopt(t, server.DSN("postgres"))
	db.SQL(t, "create extension pg_stat_statements")
	ids := db.InsertMany(t, audits)
	app := pgtest.Connect(t, db.Admin)

	options := []string{"SSE_FALLBACK_DB_INTERVAL_SECONDS=3600", profiled} // the safety net's reads are counted elsewhere
	i := harness.Launch(t, harness.PlainBinary(t), db.Serve, options...)
	i.WaitReady(t, "up")
	options = append(options, "HTTP_ADDR="+i.URL[len("http://"):])
	before := collect(t, i)

	state := 0
	for _, clients := range []int{few, many} {
		start := time.Now()
		s := newSwarm(t, i, clients, ids)
		s.served(t, 1, state)
		t.Logf("%d clients of %d audits: served within %v", clients, audits, time.Since(start).Round(time.Millisecond))
		for round, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			i.Signal(t, sig)
			if code := i.End(t); sig == syscall.SIGTERM && code != 0 {
				t.Errorf("exit status %d after %v, want 0", code, sig)
			}
			state++
			harness.Exec(t, app, `update audits set total_pages = $1`, state)
			asked := queries(t, app)
			start := time.Now()
			i = harness.Launch(t, harness.PlainBinary(t), db.Serve, options...)
			s.served(t, round+2, state)
			took := time.Since(start)
			var reads, all float64
			harness.Eventually(t, func() error { // a read may come between the two questions
				reads, all = i.Metric(t, hubReads), queries(t, app)-asked
				// Beside the hub's reads there is the one with which the program starts, and perhaps one that metrics do not count yet.
				if all < reads+1 || all > reads+2 {
					return fmt.Errorf("PostgreSQL counts %v queries, the hub %v reads and one at the start", all, reads)
				}
				return nil
			})
			t.Logf("%d clients after %v: served within %v of the start, by %v reads, %v queries as PostgreSQL counts them",
				clients, sig, took.Round(time.Millisecond), reads, all)
			wantFewReads(t, clients, took, reads)
		}
		during := collect(t, i)
		s.leave()
		wantReturn(t, i, clients, before, during)
	}
}

const hubReads = `auditstream_read_duration_seconds_count{result="ok"}`

// wantFewReads checks that streams which open together share their first reads, and that PostgreSQL saw no others.
func wantFewReads(t testing.TB, clients int, took time.Duration, reads float64) {
	t.Helper()
	// A crowd's reads are ten a second, however many it is. A read each would be 5,000.
	if most := max(25, float64(clients)/100) + 10*took.Seconds(); reads > most {
		t.Errorf("%v reads for %d clients within %v, want %.0f at most", reads, clients, took, most)
	}
}

// descriptor is the most that the runtime keeps of a goroutine, in bytes.
const descriptor = 512

// measuring is what looking takes, in bytes: a collection may find the compressors of a heap profile and of the metrics, 0.8 MB
// each, and their buffers in use. The profile of a process that was left says so (compress/flate.NewWriter).
const measuring = 2e6

// wantReturn waits until all streams have gone, and their goroutines and memory with them. What the runtime keeps of the
// goroutines that answered all requests at once is told apart: it never frees their descriptors, which is little, but so are the
// streams.
func wantReturn(t testing.TB, i *harness.Instance, clients int, before, during cost) {
	t.Helper()
	start := time.Now()
	i.WaitMetric(t, harness.StreamsOpen, harness.AtMost(0))
	var after cost
	var kept float64
	harness.Eventually(t, func() error {
		after = collect(t, i)
		kept = descriptors(t, i)
		// net/http has one goroutine for a connection, and one that reads while its request is answered; a third is for the samples,
		// of which there are few.
		if most := 3 * descriptor * float64(clients+100); kept > most {
			return fmt.Errorf("descriptors of goroutines: %.1f MB after %d streams, want %.1f MB at most", kept/1e6, clients, most/1e6)
		}
		// The allocator gives memory back to the system over some seconds, and keeps some of it.
		for _, c := range []struct {
			name                  string
			before, during, after float64
			part                  float64 // of what the streams cost, that may stay
		}{
			{"live heap", before.live, during.live, after.live, 0.2},
			{"stacks", before.stacks, during.stacks, after.stacks, 0.1},
			{"resident memory", before.resident, during.resident, after.resident, 0.5},
		} {
			if most := c.before + c.part*(c.during-c.before) + kept + measuring; c.after > most {
				return fmt.Errorf("%s: %.1f MB before, %.1f MB with %d streams, %.1f MB without, want %.1f MB at most",
					c.name, c.before/1e6, c.during/1e6, clients, c.after/1e6, most/1e6)
			}
		}
		if after.goroutines > before.goroutines+5 {
			return fmt.Errorf("%v goroutines before the streams, %v after", before.goroutines, after.goroutines)
		}
		return nil
	})
	t.Logf("%d clients: %.1f kB resident each\nbefore: %v\nduring: %v\n%v after they left: %v; descriptors of goroutines %.1f MB", clients,
		(during.resident-before.resident)/float64(clients)/1e3, before, during, time.Since(start).Round(time.Millisecond), after, kept/1e6)
}

// queries counts, on PostgreSQL's side, how often somebody has read the view, for many audits or for one.
func queries(t testing.TB, conn *pgx.Conn) (n float64) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `select coalesce(sum(calls), 0)::float8 from pg_stat_statements
		where query like '%auditstream.progress as p on p.audit_id%' or query like '%auditstream.progress as p where p.audit_id%'`).Scan(&n)
	harness.NoError(t, err)
	return n
}
