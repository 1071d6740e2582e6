package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/redistest"
)

// relay runs auditstream relay until the test is over, and checks that it stops when it is told to.
func relay(t *testing.T, db database, redisURL string) {
	t.Helper()
	cmd := exec.Command(binary(t), "relay")
	log := newLogBuffer()
	cmd.Env = environment([]string{"DATABASE_URL=" + db.Serve, "REDIS_URL=" + redisURL, "LOG_FORMAT=json", "LOG_LEVEL=debug"})
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("auditstream relay: %v\n%s", err, log.String())
			}
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Error("auditstream relay does not stop")
		}
		noLeak(t, "auditstream relay", log.String(), ownSecrets(cmd.Env, nil))
	})
	eventually(t, func() error {
		if !strings.Contains(log.String(), `"listening for notifications"`) {
			return fmt.Errorf("relay: %s", log.String())
		}
		return nil
	})
}

// Two relays, two instances: PostgreSQL has the relays' listeners alone, changes arrive by Redis, and push comes back after
// Redis was away. The safety net is an hour away, so that nothing else brings them.
func TestRedisRelay(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	redis := redistest.Start(t, "--requirepass", "serve-redis-password")
	url := "redis://:serve-redis-password@" + redis.Addr + "/0"
	relay(t, db, url)
	relay(t, db, url)
	var streams []*stream
	var instances []*instance
	for range 2 {
		i := serve(t, db.Serve, "SSE_SOURCE=redis", "REDIS_URL="+url, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
		i.waitReady(t, "up")
		instances = append(instances, i)
		s := i.watch(t, "1", alice(t))
		defer s.cancel()
		s.nextProgress(t)
		streams = append(streams, s)
	}
	// An instance says what it watches once its lock is held; the lock is what keeps the others from forgetting it.
	eventually(t, func() error {
		if got := db.sql(t, "select count(distinct instance) from auditstream.watch where audit_id = 1"); got != "2" {
			return fmt.Errorf("%s instances watch the audit, want 2", got)
		}
		return nil
	})
	if got := db.sql(t, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'auditstream listener'"); got != "2" {
		t.Errorf("%s listeners, want the relays' 2", got)
	}
	reach := func(percent int) {
		t.Helper()
		for _, s := range streams {
			for s.nextProgress(t).Progress != percent { // until it comes
			}
		}
	}
	set := func(percent int) { db.sql(t, fmt.Sprintf("update audits set progress = %d where id = 1", percent)) }
	set(30)
	reach(30)
	for _, i := range instances {
		i.waitMetric(t, `auditstream_notifications_total{kind="row"}`, atLeast(1))
	}
	redis.Kill()
	for _, i := range instances {
		i.waitReady(t, "polling")
	}
	set(40) // nobody is told
	redis.Restart(t)
	for _, i := range instances {
		i.waitReady(t, "up")
	}
	reach(40)
	set(50)
	reach(50)
	// All rows are changed at once without a row's trigger: the relay passes the call to read everything on.
	db.sql(t, "truncate audits cascade")
	for _, s := range streams {
		if event := s.next(t); event.Data != `{"error":"Audit not found"}` {
			t.Errorf("after truncate: %s", event.Data)
		}
	}
}
