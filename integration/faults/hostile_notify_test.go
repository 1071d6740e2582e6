package faults

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgreSQL lets every role NOTIFY every channel, so whatever comes in on ours may be forged. The server is the test's
// own: its queue of notifications is that of all its databases.

// forger is a connection as a role that may do nothing but connect.
func forger(t *testing.T, admin string) *pgx.Conn {
	t.Helper()
	const name = "auditstream_test_forger"
	pgtest.Psql(t, admin, `do $$ begin
		create role `+name+` login password 'forged-password' nosuperuser;
	exception when duplicate_object then null; end $$`)
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, "forged-password")
	return pgtest.Connect(t, u.String())
}

// flooded is what a flood runs against.
type flooded struct {
	db      harness.Database
	i       *harness.Instance
	ids     []string
	foreign string
	viewers []*harness.Viewer
	times   *harness.Stopwatch
	app     *pgx.Conn
	heard   func(t testing.TB, id string) time.Time // a bare LISTEN connection's markers
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
	for _, v := range f.viewers {
		v.Reached(t, 0)
	}
	f.app = pgtest.Connect(t, f.db.Admin)
	f.heard = markers(t, f.db.Admin)
	return f
}

// update changes every watched audit, waits until every stream shows it, and returns how long that took, and how long a
// bare LISTEN connection took to hear of the same commit.
func (f *flooded) update(t *testing.T) (shown, heard time.Duration) {
	t.Helper()
	f.n++
	mark := fmt.Sprintf("marker %d", f.n)
	tx, err := f.app.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `update audits set total_pages = $1 where user_id = 'alice'`, f.n); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select pg_notify('auditstream', $1)`, mark); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, v := range f.viewers {
		v.Reached(t, f.n)
	}
	shown = time.Since(start)
	return shown, f.heard(t, mark).Sub(start)
}

// markers listens on a connection of its own and returns a function that says when a payload came.
func markers(t *testing.T, dsn string) func(t testing.TB, mark string) time.Time {
	t.Helper()
	conn := pgtest.Connect(t, dsn)
	if _, err := conn.Exec(t.Context(), "listen auditstream"); err != nil {
		t.Fatal(err)
	}
	type arrival struct {
		mark string
		at   time.Time
	}
	arrivals := make(chan arrival, 10_000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return
			}
			if strings.HasPrefix(n.Payload, "marker ") {
				arrivals <- arrival{n.Payload, time.Now()}
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func(t testing.TB, mark string) time.Time {
		t.Helper()
		select {
		case a := <-arrivals:
			if a.mark != mark {
				t.Fatalf("%q was heard, want %q", a.mark, mark)
			}
			return a.at
		case <-time.After(harness.Patience):
			t.Fatalf("%q was not heard", mark)
		}
		panic("unreachable")
	}
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
	if err != nil {
		t.Fatal(err)
	}
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

func TestHostileNotifications(t *testing.T) {
	t.Parallel()
	f := newFlooded(t)
	forgers := forger(t, f.db.Admin)
	for _, statement := range []string{"select from audits", "select from auditstream.progress", "update audits set progress = 1", "truncate audits"} {
		if _, err := forgers.Exec(t.Context(), statement); !refused(err) {
			t.Fatalf("%s: %v: the forger is to have no rights", statement, err)
		}
	}
	collect := func() float64 { // what is left after a garbage collection
		(&harness.Instance{URL: f.i.Admin}).Ask(t, "GET", "/debug/pprof/heap?gc=1")
		return f.i.Metric(t, "go_memstats_heap_alloc_bytes")
	}
	heap, before := collect(), f.work(t)

	t.Run("every kind of payload", func(t *testing.T) {
		var sql strings.Builder
		for _, payload := range append(badPayloads(), f.foreign, "987654321", "9223372036854775807") {
			for range 3 { // not in one transaction, where they would be one
				fmt.Fprintf(&sql, "begin; select pg_notify('auditstream', %s); commit;", pgQuote(payload))
			}
		}
		ignored := f.i.Metric(t, `auditstream_notifications_total{kind="ignored"}`)
		done, updates := f.endure(t, sql.String())
		if done.reads > float64(updates*(1+len(f.ids))) || done.asked > float64(updates*len(f.ids)) {
			t.Errorf("%v reads of %v audits for %d updates of %d audits: what nobody watches, or says nothing, was read", done.reads, done.asked, updates, len(f.ids))
		}
		f.i.WaitMetric(t, `auditstream_notifications_total{kind="ignored"}`, harness.AtLeast(ignored+3*20))
	})
	t.Run("100,000 in one transaction", func(t *testing.T) {
		done, updates := f.endure(t, `select count(pg_notify('auditstream', (array['x', '0', '!', '', '-', '+', ' '])[1 + n % 7] || (1000000 + n))) from generate_series(1, 100000) n`)
		if done.asked > float64(updates*len(f.ids)) {
			t.Errorf("%v audits were read for %d updates of %d audits", done.asked, updates, len(f.ids))
		}
	})
	t.Run("100,000 in 5,000 transactions", func(t *testing.T) {
		done, updates := f.endure(t, `do $$ begin for n in 1..5000 loop
			perform pg_notify('auditstream', p || (1000000 + 4 * n + k)) from unnest(array['x', '00', '!', '', '-']) p, generate_series(0, 3) k; commit; end loop; end $$`)
		if done.asked > float64(updates*len(f.ids)) {
			t.Errorf("%v audits were read for %d updates of %d audits", done.asked, updates, len(f.ids))
		}
	})
	t.Run("5,000 of 7,999 bytes", func(t *testing.T) {
		done, updates := f.endure(t, `do $$ begin for n in 1..50 loop
			perform pg_notify('auditstream', rpad((100 * n + k)::text, 7999, (array['x', '9', '!', '*'])[1 + k % 4])) from generate_series(1, 100) k; commit; end loop; end $$`)
		if done.asked > float64(updates*len(f.ids)) {
			t.Errorf("%v audits were read for %d updates of %d audits", done.asked, updates, len(f.ids))
		}
	})
	t.Run("10,000 times an audit that is watched", func(t *testing.T) {
		const forged = 10_000
		done, updates := f.endure(t, fmt.Sprintf(`do $$ begin for n in 1..%d loop perform pg_notify('auditstream', '%s'); commit; end loop; end $$`, forged, f.ids[0]))
		// A forged one costs a read of one row at most; real ones go on.
		if limit := float64(forged + updates*(1+len(f.ids))); done.reads > limit || done.asked > limit {
			t.Errorf("%v reads of %v audits for %d forged notifications and %d updates, want at most %v", done.reads, done.asked, forged, updates, limit)
		}
	})
	// Nothing reads behind the metrics' back: PostgreSQL counts no more scans of the table than the reads and the
	// application explain. Its counters may be a second behind.
	after := f.work(t)
	if limit := after.asked - before.asked + after.reads - before.reads + float64(f.n) + 10; after.scans-before.scans > limit {
		t.Errorf("PostgreSQL counts %v scans of the table, want at most %v", after.scans-before.scans, limit)
	}
	t.Run("resync all the time", func(t *testing.T) {
		done, updates := f.endure(t, `do $$ declare s timestamptz := clock_timestamp(); begin
			while clock_timestamp() < s + interval '3 s' loop perform pg_notify('auditstream', '*'); commit; end loop; end $$`)
		seconds := time.Since(done.at).Seconds()
		full := (done.asked - float64(updates*len(f.ids))) / float64(len(f.ids))
		if limit := seconds + 2; full > limit {
			t.Errorf("%.1f full reads in %.1f s because of forged notifications, want about one a second (at most %.1f)", full, seconds, limit)
		}
	})

	if got := f.i.Metric(t, missed); got != 0 {
		t.Errorf("%v missed notifications, want 0", got)
	}
	if got := f.i.Metric(t, "auditstream_listener_connects_total"); got != 1+f.silences {
		t.Errorf("%v connects of the listener, want 1 and %v after silences", got, f.silences)
	}
	const mega = 1 << 20
	if left := collect(); left > heap+8*mega {
		t.Errorf("%.1f MB are in use after the floods, %.1f MB were before", left/mega, heap/mega)
	}
	harness.Eventually(t, func() error {
		if usage := f.db.SQL(t, `select pg_notification_queue_usage()`); usage != "0" {
			return fmt.Errorf("the notification queue is %s full, want 0", usage)
		}
		return nil
	})
}

// badPayloads are those that nothing of ours sends.
func badPayloads() []string {
	return []string{
		"", " ", "0", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "\t1", "1e3", "1.0", "0x1", "1_0", "1,2", "1;2", "１", "١", "½", "²",
		"9223372036854775808", "18446744073709551617", "-9223372036854775808", "99999999999999999999999", strings.Repeat("9", 7999),
		"**", "* ", " *", "*1", "%", "null", "true", "NaN", "[1]", `{"id":1}`, `{"audit_id":1,"status":"completed"}`, `"1"`, "'1'",
		"!", "!!", "!" + strings.Repeat("A", 26), "!" + strings.Repeat("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 249), "! 1", "!1",
		strings.Repeat("x", 7999), strings.Repeat("€", 2666), "😀", "é\u0301", "\u202e1", "\ufeff1", "\u200b1", "\x01", "\x7f", "a\r\nb", "data: x\n\n",
		"$1", `\x31`, "select 1; --", "../1", "<1>", "%s%n", strings.Repeat("\\", 4000),
	}
}

func pgQuote(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}

func refused(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "42501"
}

// Only the canary that is on its way says that LISTEN works, and nobody can guess it. This instance listens in another
// database, as after a failover that left it behind, where somebody forges whatever looks like life.
func TestHostileCanariesProveNothing(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	elsewhere := pgtest.New(t)
	conn := forger(t, elsewhere)
	u, err := url.Parse(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(harness.ServeRole, "serve-password")
	ctx, cancel := context.WithCancel(t.Context())
	forged := make(chan error, 1)
	go func() {
		for {
			_, err := conn.Exec(ctx, `select pg_notify('auditstream', '!' || upper(md5(random()::text))), pg_notify('auditstream', '1'),
				pg_notify('auditstream', '!'), pg_notify('auditstream', '!' || repeat('A', 26))`)
			select {
			case <-ctx.Done():
				forged <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			if err != nil {
				forged <- err
				return
			}
		}
	}()
	i := harness.Serve(t, db.Serve, "DATABASE_LISTEN_URL="+u.String(), "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	v := i.View(t, db.InsertMany(t, 1)[0], nil)
	i.WaitMetric(t, harness.ListenerSilent, harness.AtLeast(1))
	cancel()
	if err := <-forged; err != nil {
		t.Fatal(err)
	}
	i.WaitReady(t, "polling")
	if got := i.Metric(t, `auditstream_notifications_total{kind="canary"}`); got < 10 {
		t.Errorf("%v canaries were heard, want the forged ones", got)
	}
	if got := i.Metric(t, "auditstream_canary_seconds_count"); got != 0 || strings.Contains(i.Log.String(), "listening for notifications") {
		t.Errorf("%v forged canaries were believed", got)
	}
	db.SetAll(t, 1)
	v.Reached(t, 1) // by the safety net
}
