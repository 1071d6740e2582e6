package integration

import (
	"fmt"
	"testing"
	"time"

	"auditstream/internal/pgtest"
)

const (
	listenerUp     = "auditstream_listener_up"
	listenerSilent = `auditstream_listener_failures_total{reason="silent"}`
	missed         = "auditstream_notifications_missed_total"
	// promptly is how soon a change is shown once LISTEN is back.
	promptly = time.Second
	// withinNet is how late the safety net of 10 s may be.
	withinNet = 11 * time.Second
)

func TestPitfall05TerminatedListenerIsBackWithinASecond(t *testing.T) {
	overBoth(t, testPitfall05TerminatedListenerIsBackWithinASecond)
}

func testPitfall05TerminatedListenerIsBackWithinASecond(t *testing.T) {
	db := newDatabase(t)
	// What the safety net would find does not count.
	i := serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	i.waitReady(t, "up")
	viewers := i.crowd(t, 20, db.insertMany(t, 4), nil)
	late, prompt := 0, 0
	for round := 0; prompt < 2; round++ {
		connects := i.metric(t, "auditstream_listener_connects_total")
		// In one transaction, the connection is killed and the change committed: its notification finds nobody.
		killed := db.sql(t, fmt.Sprintf(`begin;
			select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
			where application_name = 'auditstream listener' and datname = current_database();
			update audits set total_pages = %d; commit`, 2*round+1))
		if killed != "1" {
			t.Fatalf("%s listening connections killed, want 1", killed)
		}
		start := time.Now()
		for _, v := range viewers {
			v.reached(t, 2*round+1)
		}
		if took := time.Since(start); took <= promptly {
			prompt++
		} else if late++; late == 4 { // pauses of the machine explain some
			t.Fatalf("in %d of %d rounds a change committed while nobody listened was late, this one by %v", late, round+1, took)
		}
		if got := i.metric(t, "auditstream_listener_connects_total"); got <= connects {
			t.Errorf("%v connects of the listener, want more than %v", got, connects)
		}
		i.waitReady(t, "up")
		db.set(t, 2*round+2)
		for _, v := range viewers {
			v.reached(t, 2*round+2)
		}
	}
	if got := i.metric(t, missed); got != 0 {
		t.Errorf("%v missed notifications, want 0: a resync explains the changes", got)
	}
}

// shownPromptly commits state n and returns it when the viewers were shown it in time. It repeats with the following numbers before
// it fails: a pause of the machine explains one update that was late.
func (db *database) shownPromptly(t *testing.T, n int, viewers ...*viewer) int {
	t.Helper()
	for last := n + 2; ; n++ {
		start := time.Now()
		db.set(t, n)
		for _, v := range viewers {
			v.reached(t, n)
		}
		took := time.Since(start)
		if took <= promptly {
			return n
		}
		if n == last {
			t.Fatalf("three updates in a row were late after LISTEN was back, the last by %v", took)
		}
	}
}

// A connection through which nothing comes any more, and no news of that either.
func TestPitfall05HalfOpenListenerIsNoticed(t *testing.T) {
	overBoth(t, testPitfall05HalfOpenListenerIsNoticed)
}

func testPitfall05HalfOpenListenerIsNoticed(t *testing.T) {
	db := newDatabase(t)
	proxy, listenURL := pgtest.ProxyDSN(t, db.Serve)
	netted := serve(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL)
	listening := serve(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	netted.waitReady(t, "up")
	listening.waitReady(t, "up")
	ids := db.insertMany(t, 1)
	v, w := netted.view(t, ids[0], nil), listening.view(t, ids[0], nil)

	proxy.Pause()
	db.set(t, 1)
	start := time.Now()
	v.reached(t, 1)
	if took := time.Since(start); took > withinNet {
		t.Errorf("the safety net took %v", took)
	}
	for _, i := range []*instance{netted, listening} {
		i.waitMetric(t, listenerSilent, atLeast(1))
		i.waitReady(t, "polling")
	}

	proxy.DropAll()
	proxy.Resume()
	listening.waitMetric(t, listenerUp, atLeast(1))
	w.reached(t, 1) // by the resync after LISTEN: this instance has no safety net
	v.reached(t, db.shownPromptly(t, 2, w))
	if !v.isOpen() || !w.isOpen() {
		t.Error("a stream was closed")
	}
}

// The connection is held up but not broken, and goes on by itself.
func TestFaultHalfOpenListenerThatRecoversByItself(t *testing.T) {
	overBoth(t, testFaultHalfOpenListenerThatRecoversByItself)
}

func testFaultHalfOpenListenerThatRecoversByItself(t *testing.T) {
	db := newDatabase(t)
	proxy, listenURL := pgtest.ProxyDSN(t, db.Serve)
	i := serve(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	i.waitReady(t, "up")
	v := i.view(t, db.insertMany(t, 1)[0], nil)

	proxy.Pause()
	db.set(t, 1)
	proxy.Resume()
	v.reached(t, 1)

	proxy.Pause()
	db.set(t, 2)
	i.waitMetric(t, listenerSilent, atLeast(1))
	proxy.Resume()
	i.waitReady(t, "up")
	v.reached(t, 2)
	db.set(t, 3)
	v.reached(t, 3)
}

func TestFaultLostTriggersAreCountedAndHealed(t *testing.T) {
	overBoth(t, testFaultLostTriggersAreCountedAndHealed)
}

func testFaultLostTriggersAreCountedAndHealed(t *testing.T) {
	db := adopt(t, pgtest.NewServer(t).DSN("postgres")) // other tests' transactions, open at a registration, explain changes
	i := serve(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	i.waitReady(t, "up")
	viewers := i.crowd(t, 6, db.insertMany(t, 2), nil)
	n := 0
	change := func() {
		t.Helper()
		n++
		db.set(t, n)
		for _, v := range viewers {
			v.reached(t, n)
		}
	}
	install := func() {
		t.Helper()
		command(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--role", role)
	}
	healthy := func() {
		t.Helper()
		want := i.metric(t, missed)
		rows := i.metric(t, `auditstream_notifications_total{kind="row"}`)
		change()
		i.waitMetric(t, `auditstream_notifications_total{kind="row"}`, atLeast(rows+2))
		if got := i.metric(t, missed); got != want {
			t.Errorf("%v missed notifications, want %v", got, want)
		}
	}
	// unannounced changes both rows until that is counted: the reading of all that an install asks for may be late, and finds changes
	// that nobody could miss.
	unannounced := func() {
		t.Helper()
		want := i.metric(t, missed) + 2
		for range 6 {
			change()
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
				if i.metric(t, missed) >= want {
					return
				}
			}
		}
		t.Fatalf("%v missed notifications, want %v", i.metric(t, missed), want)
	}
	healthy()
	healthy()
	if got := i.metric(t, missed); got != 0 {
		t.Errorf("%v missed notifications, want none", got)
	}

	db.sql(t, `alter table audits disable trigger user`)
	unannounced()
	i.waitLog(t, "changes were found that no notification announced; is a trigger missing or disabled, or LISTEN blocked by a pooler? Run auditstream doctor: it says which, and what to do")
	install()
	healthy()

	db.sql(t, `drop trigger auditstream_update on audits`)
	unannounced()
	install()
	healthy()

	// Without the view nothing can be read. Streams wait for it.
	db.sql(t, `drop view auditstream.progress`)
	n++
	db.set(t, n)
	i.waitMetric(t, `auditstream_read_duration_seconds_count{result="error"}`, atLeast(2))
	eventually(t, func() error {
		if status, body := i.get(t, "/readyz"); status != 503 {
			return fmt.Errorf("/readyz without the view: %d %s, want 503", status, body)
		}
		return nil
	})
	install()
	for _, v := range viewers {
		v.reached(t, n)
	}
	i.waitReady(t, "up")
	healthy()
	for _, v := range viewers {
		if !v.isOpen() {
			t.Error("a stream was closed")
		}
	}
}
