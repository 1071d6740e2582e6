package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
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
	return pgtest.Connect(t, harness.As(t, admin, name, "forged-password"))
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
		f.i.CollectGarbage(t)
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

	f.i.WantMetric(t, missed, 0)
	f.i.WantMetric(t, "auditstream_listener_connects_total", 1+f.silences)
	const mega = 1 << 20
	if left := collect(); left > heap+8*mega {
		t.Errorf("%.1f MB are in use after the floods, %.1f MB were before", left/mega, heap/mega)
	}
	f.db.WaitSQL(t, `select pg_notification_queue_usage()`, "0")
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
	i := harness.Serve(t, db.Serve, "DATABASE_LISTEN_URL="+harness.As(t, elsewhere, harness.ServeRole, "serve-password"), "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	v := i.View(t, db.InsertMany(t, 1)[0], nil)
	i.WaitMetric(t, harness.ListenerSilent, harness.AtLeast(1))
	cancel()
	harness.NoError(t, <-forged)
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
