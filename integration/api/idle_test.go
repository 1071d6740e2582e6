package api

import (
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
)

// loud is a server that logs each statement with who sent it.
func loud(t testing.TB) harness.Database {
	t.Helper()
	return harness.Adopt(t, pgtest.NewServer(t, func(cfg *localpg.Config) {
		cfg.Settings = map[string]string{
			"logging_collector": "on", "log_filename": "all.log", "log_destination": "stderr", "log_statement": "all", "log_line_prefix": "<%a> ",
		}
	}).DSN("postgres"))
}

// statements are those that an instance has sent, a line each.
func statements(t testing.TB, d harness.Database) (all []string) {
	t.Helper()
	log := d.SQL(t, `select pg_read_file(pg_current_logfile())`)
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "<auditstream") && (strings.Contains(line, " statement: ") || strings.Contains(line, " execute ")) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// 38 statements a minute while nobody watched kept a database awake that sleeps when it is asked nothing.
func TestU22IdleDatabaseIsLeftAlone(t *testing.T) {
	t.Parallel()
	const idle = 80 * time.Second // twenty canaries, as many questions what the triggers ask for, and a look at the schema
	db := loud(t)
	i := harness.ServeReady(t, db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	i.WaitLog(t, "telling the triggers what is watched")
	id := db.Insert(t, "status", "'running'")
	_ = i.Metric(t, "auditstream_notification_queue_usage_ratio")
	// What a start sends has been sent when the first canary's second has passed.
	<-time.After(5 * time.Second)
	before := len(statements(t, db))
	for end := time.Now().Add(idle); time.Now().Before(end); <-time.After(time.Second) {
		if got := i.Metric(t, harness.ListenerUp); got != 1 { // as collectors do
			t.Errorf("the listener is not up: %v", got)
		}
	}
	if sent := statements(t, db)[before:]; len(sent) == 0 || len(sent) > 3 {
		t.Errorf("%d statements in %v while nobody watched:\n%s", len(sent), idle, strings.Join(sent, "\n"))
	}

	// The first viewer waits for nothing, and the canary that waited goes out.
	start := time.Now()
	v := i.View(t, id, nil)
	if took := time.Since(start); took > harness.Promptly {
		t.Errorf("the first state took %v", took)
	}
	harness.WaitIn(t, func() string { return strings.Join(statements(t, db)[before:], "\n") }, "pg_notify")
	db.SetAll(t, 1)
	v.Reached(t, 1)
}

// Nobody notices that a connection has died while nobody watches; the first viewer must not suffer from it.
func TestU22ListenerThatDiedIdleIsFoundWithTheFirstViewer(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	proxy, listenURL := pgtest.ProxyDSN(t, db.Serve)
	i := harness.ServeReady(t, db.Serve, "DATABASE_LISTEN_URL="+listenURL, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	i.WaitLog(t, "telling the triggers what is watched")
	id := db.InsertMany(t, 1)[0]
	proxy.Pause()
	start := time.Now()
	v := i.View(t, id, nil)
	if took := time.Since(start); took > harness.Promptly {
		t.Errorf("the first state took %v", took)
	}
	db.SetAll(t, 1)
	i.WaitMetric(t, harness.ListenerSilent, harness.AtLeast(1))
	proxy.DropAll()
	proxy.Resume()
	i.WaitReady(t, "up")
	v.Reached(t, 1)
	db.SetAll(t, 2)
	v.Reached(t, 2)
}
