package faults

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// flooded is what a flood runs against.
type flooded struct {
	db      harness.Database
	i       *harness.Instance
	ids     []string
	foreign string
	viewers []*harness.Viewer
	times   *harness.Stopwatch
	app     *pgx.Conn
	heard   func(t testing.TB, id string) time.Time // by a bare LISTEN connection: a marker
	n       int                                     // the state of all audits

	silences float64 // connections given up because a machine under load let even a bare one wait
}

func newFlooded(t *testing.T) *flooded {
	t.Helper()
	server := pgtest.NewServer(t, func(c *localpg.Config) { c.Settings = map[string]string{"fsync": "off"} })
	f := &flooded{db: harness.Adopt(t, server.DSN("postgres")), times: harness.NewStopwatch()}
	f.i = harness.ServeBinary(t, harness.PlainBinary(t), f.db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600", "SSE_POLL_HOT=off") // whose reads would hide those of forged notifications
	f.i.WaitReady(t, "up")
	f.ids = f.db.InsertMany(t, 20)
	f.foreign = f.db.SQL(t, "insert into audits (url, user_id, status) values ('https://example.com', 'bob', 'running') returning id")
	f.viewers = f.i.Crowd(t, 2*len(f.ids), f.ids, f.times.Seen)
	harness.AllReached(t, f.viewers, 0)
	f.app = pgtest.Connect(t, f.db.Admin)
	f.heard = harness.ListenBare(t, f.db.Admin, "marker ")
	return f
}

// update changes every watched audit, waits until every stream shows it, and returns how long that took, and how long a
// bare LISTEN connection took to hear of the same commit.
func (f *flooded) update(t *testing.T) (shown, heard time.Duration) {
	t.Helper()
	f.n++
	mark := fmt.Sprintf("marker %d", f.n)
	tx, err := f.app.Begin(t.Context())
	harness.NoError(t, err)
	harness.Exec(t, f.app, `update audits set total_pages = $1 where user_id = 'alice'`, f.n)
	harness.Exec(t, f.app, `select pg_notify('auditstream', $1)`, mark)
	start := time.Now()
	harness.NoError(t, tx.Commit(t.Context()))
	harness.AllReached(t, f.viewers, f.n)
	shown = time.Since(start)
	return shown, f.heard(t, mark).Sub(start)
}

// work is what the instance has done so far.
type work struct {
	reads, asked, scans, lines, silent float64
	at                                 time.Time
}

func (f *flooded) work(t *testing.T) (w work) {
	t.Helper()
	w.at = time.Now()
	w.reads = f.i.Metric(t, `auditstream_read_duration_seconds_count{result="ok"}`)
	w.asked = f.i.Metric(t, "auditstream_read_audits_sum")
	w.lines = float64(strings.Count(f.i.Log.String(), "\n"))
	w.silent = f.i.Metric(t, harness.ListenerSilent)
	err := f.app.QueryRow(t.Context(), `select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'audits'`).Scan(&w.scans)
	harness.NoError(t, err)
	return w
}

// endure lets the forger run SQL while real updates go on, and returns what the instance did meanwhile, and how many
// updates there were. Nobody may be shown anything but those, and not much later than a bare LISTEN connection hears.
func (f *flooded) endure(t *testing.T, flood string) (done work, updates int) {
	t.Helper()
	harness.Measure(t, func() (late error) {
		done, updates, late = f.flood(t, flood)
		return late
	})
	return done, updates
}

// flood is endure once; late says what took too long.
func (f *flooded) flood(t *testing.T, flood string) (done work, updates int, late error) {
	t.Helper()
	conn := forger(t, f.db.Admin)
	events := make([]int, len(f.viewers))
	for k, v := range f.viewers {
		events[k], _ = v.Counts()
	}
	before := f.work(t)

	forged := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(t.Context(), flood).ReadAll()
		forged <- err
	}()
	var shown, heard, longest time.Duration
	for running := true; running || updates < 3; updates++ {
		s, h := f.update(t)
		shown, heard, longest = shown+s, heard+h, max(longest, h)
		select {
		case err := <-forged:
			if err != nil {
				t.Fatalf("the forger cannot NOTIFY: %v", err)
			}
			running = false
		default:
		}
	}
	took := time.Since(before.at)
	t.Logf("%v, %d updates: shown after %v on average, heard by a bare LISTEN after %v", took.Round(time.Millisecond), updates,
		(shown / time.Duration(updates)).Round(time.Microsecond), (heard / time.Duration(updates)).Round(time.Microsecond))
	// A read and 40 streams come on top of the notification; what no more than a bare connection can do is not asked for.
	if limit := 10*heard + time.Duration(updates)*300*time.Millisecond; shown > limit {
		late = fmt.Errorf("%d updates were shown after %v in all, a bare LISTEN heard of them after %v: want at most %v", updates, shown, heard, limit)
	}
	for k, v := range f.viewers {
		if now, _ := v.Counts(); now-events[k] != updates {
			t.Errorf("audit %s: %d events for %d updates", v.ID, now-events[k], updates)
		}
		if !v.IsOpen() {
			t.Errorf("the stream of audit %s has ended: %q", v.ID, v.End())
		}
	}
	after := f.work(t)
	done = work{reads: after.reads - before.reads, asked: after.asked - before.asked, lines: after.lines - before.lines,
		silent: after.silent - before.silent, at: before.at}
	t.Logf("%v reads of %v audits, %v log lines", done.reads, done.asked, done.lines)
	if done.lines > 20 {
		t.Errorf("%v lines were logged during the flood, want next to none", done.lines)
	}
	const canaryTimeout = 2 * time.Second
	if done.silent > 0 && longest < canaryTimeout { // else even a bare connection was silent for so long
		late = errors.Join(late, fmt.Errorf("fallen silent %v times, want 0: the flood was taken for silence; a bare LISTEN heard within %v", done.silent, longest))
	}
	f.silences += done.silent
	done.asked -= done.silent * float64(len(f.ids)) // each reconnect reads all
	f.i.WaitMetric(t, harness.ListenerUp, harness.AtLeast(1))
	return done, updates, late
}
