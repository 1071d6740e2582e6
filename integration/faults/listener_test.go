package faults

import (
	"fmt"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

const missed = "auditstream_notifications_missed_total"

func TestPitfall05TerminatedListenerIsBackWithinASecond(t *testing.T) {
	harness.OverHTTP1And2(t, testPitfall05TerminatedListenerIsBackWithinASecond)
}

func testPitfall05TerminatedListenerIsBackWithinASecond(t *testing.T) {
	db := harness.NewDatabase(t)
	// What the safety net would find does not count.
	i := harness.ServeReady(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	viewers := i.Crowd(t, 20, db.InsertMany(t, 4), nil)
	late, prompt := 0, 0
	for round := 0; prompt < 2; round++ {
		connects := i.Metric(t, "auditstream_listener_connects_total")
		// In one transaction, the connection is killed and the change committed: its notification finds nobody.
		killed := db.SQL(t, fmt.Sprintf(`begin;
			select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
			where application_name = 'auditstream listener' and datname = current_database();
			update audits set total_pages = %d; commit`, 2*round+1))
		if killed != "1" {
			t.Fatalf("%s listening connections killed, want 1", killed)
		}
		start := time.Now()
		harness.AllReached(t, viewers, 2*round+1)
		if took := time.Since(start); took <= harness.Promptly {
			prompt++
		} else if late++; late == 4 { // pauses of the machine explain some
			t.Fatalf("in %d of %d rounds a change committed while nobody listened was late, this one by %v", late, round+1, took)
		}
		// Waited for: a read of the state before may have found this one, too, before the listener was back.
		i.WaitMetric(t, "auditstream_listener_connects_total", harness.AtLeast(connects+1))
		i.WaitReady(t, "up")
		db.SetAll(t, 2*round+2)
		harness.AllReached(t, viewers, 2*round+2)
	}
	i.WantMetric(t, missed, 0)
}

// shownPromptly commits state n and returns it when the viewers were shown it in time. It repeats with the following numbers before
// it fails: a pause of the machine explains one update that was late.
func shownPromptly(t *testing.T, db *harness.Database, n int, viewers ...*harness.Viewer) int {
	t.Helper()
	for last := n + 2; ; n++ {
		start := time.Now()
		db.SetAll(t, n)
		harness.AllReached(t, viewers, n)
		took := time.Since(start)
		if took <= harness.Promptly {
			return n
		}
		if n == last {
			t.Fatalf("three updates in a row were late after LISTEN was back, the last by %v", took)
		}
	}
}

// A connection through which nothing comes any more, and no news of that either.
func TestPitfall05HalfOpenListenerIsNoticed(t *testing.T) {
	harness.OverHTTP1And2(t, testPitfall05HalfOpenListenerIsNoticed)
}

func testPitfall05HalfOpenListenerIsNoticed(t *testing.T) {
	db := harness.NewDatabase(t)
	proxy, listenURL := pgtest.ProxyDSN(t, db.Serve)
	netted := harness.Serve(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL)
	listening := harness.Serve(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	netted.WaitReady(t, "up")
	listening.WaitReady(t, "up")
	ids := db.InsertMany(t, 1)
	v, w := netted.View(t, ids[0], nil), listening.View(t, ids[0], nil)

	proxy.Pause()
	db.SetAll(t, 1)
	start := time.Now()
	v.Reached(t, 1)
	if took := time.Since(start); took > harness.WithinNet {
		t.Errorf("the safety net took %v", took)
	}
	for _, i := range []*harness.Instance{netted, listening} {
		i.WaitMetric(t, harness.ListenerSilent, harness.AtLeast(1))
		i.WaitReady(t, "polling")
	}

	proxy.DropAll()
	proxy.Resume()
	listening.WaitMetric(t, harness.ListenerUp, harness.AtLeast(1))
	w.Reached(t, 1) // by the resync after LISTEN: this instance has no safety net
	v.Reached(t, shownPromptly(t, &db, 2, w))
	if !v.IsOpen() || !w.IsOpen() {
		t.Error("a stream was closed")
	}
}

// The connection is held up but not broken, and goes on by itself.
func TestFaultHalfOpenListenerThatRecoversByItself(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultHalfOpenListenerThatRecoversByItself)
}

func testFaultHalfOpenListenerThatRecoversByItself(t *testing.T) {
	db := harness.NewDatabase(t)
	proxy, listenURL := pgtest.ProxyDSN(t, db.Serve)
	i := harness.ServeReady(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	v := i.View(t, db.InsertMany(t, 1)[0], nil)

	proxy.Pause()
	db.SetAll(t, 1)
	proxy.Resume()
	v.Reached(t, 1)

	proxy.Pause()
	db.SetAll(t, 2)
	i.WaitMetric(t, harness.ListenerSilent, harness.AtLeast(1))
	proxy.Resume()
	i.WaitReady(t, "up")
	v.Reached(t, 2)
	db.SetAll(t, 3)
	v.Reached(t, 3)
}

func TestFaultLostTriggersAreCountedAndHealed(t *testing.T) {
	harness.OverHTTP1And2(t, testFaultLostTriggersAreCountedAndHealed)
}

func testFaultLostTriggersAreCountedAndHealed(t *testing.T) {
	db := harness.Adopt(t, pgtest.NewServer(t).DSN("postgres")) // other tests' transactions, open at a registration, explain changes
	i := harness.ServeReady(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	viewers := i.Crowd(t, 6, db.InsertMany(t, 2), nil)
	n := 0
	change := func() {
		t.Helper()
		n++
		db.SetAll(t, n)
		harness.AllReached(t, viewers, n)
	}
	install := func() {
		t.Helper()
		harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--role", harness.ServeRole)
	}
	healthy := func() {
		t.Helper()
		want := i.Metric(t, missed)
		rows := i.Metric(t, `auditstream_notifications_total{kind="row"}`)
		change()
		i.WaitMetric(t, `auditstream_notifications_total{kind="row"}`, harness.AtLeast(rows+2))
		i.WantMetric(t, missed, want)
	}
	// unannounced changes both rows until that is counted: the reading of all that an install asks for may be late, and finds changes
	// that nobody could miss.
	unannounced := func() {
		t.Helper()
		want := i.Metric(t, missed) + 2
		for range 6 {
			change()
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
				if i.Metric(t, missed) >= want {
					return
				}
			}
		}
		t.Fatalf("%v missed notifications, want %v", i.Metric(t, missed), want)
	}
	healthy()
	healthy()
	i.WantMetric(t, missed, 0)

	db.SQL(t, `alter table audits disable trigger user`)
	unannounced()
	i.WaitLog(t, "changes were found that no notification announced; is a trigger missing or disabled, or LISTEN blocked by a pooler? Run auditstream doctor: it says which, and what to do")
	install()
	healthy()

	db.SQL(t, `drop trigger auditstream_update on audits`)
	unannounced()
	install()
	healthy()

	// Without the view nothing can be read. Streams wait for it.
	db.SQL(t, `drop view auditstream.progress`)
	n++
	db.SetAll(t, n)
	i.WaitMetric(t, `auditstream_read_duration_seconds_count{result="error"}`, harness.AtLeast(2))
	i.WaitStatus(t, "", "/readyz", 503)
	install()
	harness.AllReached(t, viewers, n)
	i.WaitReady(t, "up")
	healthy()
	for _, v := range viewers {
		if !v.IsOpen() {
			t.Error("a stream was closed")
		}
	}
}
