package faults

import (
	"fmt"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/redistest"
)

// relay runs auditstream relay until the test is over, and checks that it stops when it is told to. What it returns has only an
// admin address.
func relay(t *testing.T, db harness.Database, redisURL string) *harness.Instance {
	t.Helper()
	i := &harness.Instance{Log: harness.NewLogBuffer()}
	i.Cmd = exec.Command(harness.Binary(t), "relay")
	i.Cmd.Env = harness.Environment([]string{"DATABASE_URL=" + db.Serve, "REDIS_URL=" + redisURL, "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "LOG_LEVEL=debug"})
	i.Cmd.Stderr = i.Log
	i.Done = harness.StartProcess(t, i.Cmd)
	t.Cleanup(func() {
		_ = i.Cmd.Process.Signal(syscall.SIGTERM) // it may have been killed
		select {
		case <-i.Done:
			if code := i.Cmd.ProcessState.ExitCode(); code > 0 {
				t.Errorf("auditstream relay: exit status %d\n%s", code, i.Log.String())
			}
		case <-time.After(harness.Patience):
			_ = i.Cmd.Process.Kill()
			t.Error("auditstream relay does not stop")
		}
		harness.NoLeak(t, "auditstream relay", i.Log.String(), harness.OwnSecrets(i.Cmd.Env, nil))
	})
	harness.Eventually(t, func() error {
		found := relaying.FindStringSubmatch(i.Log.String())
		if found == nil {
			return fmt.Errorf("relay: %s", i.Log.String())
		}
		i.Admin = "http://" + found[1]
		return nil
	})
	waitRelay(t, i, 200, `{"status":"ready","listener":"up","redis":"up"}`)
	return i
}

var relaying = regexp.MustCompile(`"msg":"relaying","admin_addr":"([^"]+)"`)

func waitRelay(t *testing.T, i *harness.Instance, status int, body string) {
	t.Helper()
	(&harness.Instance{URL: i.Admin}).WaitAnswer(t, "/readyz", status, body)
}

// Two relays, two instances: PostgreSQL has the relays' listeners alone, changes arrive by Redis, and push comes back after
// Redis was away. The safety net is an hour away, so that nothing else brings them.
func TestRedisRelay(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	redis := redistest.Start(t, "--requirepass", "serve-redis-password")
	url := "redis://:serve-redis-password@" + redis.Addr + "/0"
	first, second := relay(t, db, url), relay(t, db, url)
	var streams []*harness.Stream
	var instances []*harness.Instance
	for _, need := range []string{"auto", "on"} {
		i := harness.ServeReady(t, db.Serve, "SSE_SOURCE=redis", "REDIS_URL="+url, "REDIS_RELAY="+need, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
		instances = append(instances, i)
		s := i.Watch(t, "1", harness.AliceToken(t))
		defer s.Cancel()
		s.NextProgress(t)
		streams = append(streams, s)
	}
	db.WatchedBy(t, "1", 2)
	db.WantSQL(t, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'auditstream listener'", "2")
	reach := func(percent int) {
		t.Helper()
		for _, s := range streams {
			for s.NextProgress(t).Progress != percent { // until it comes
			}
		}
	}
	set := func(percent int) { db.SQL(t, fmt.Sprintf("update audits set progress = %d where id = 1", percent)) }
	set(30)
	reach(30)
	for _, i := range instances {
		i.WaitMetric(t, `auditstream_notifications_total{kind="row"}`, harness.AtLeast(1))
	}
	first.WaitMetric(t, "auditstream_relay_published_total", harness.AtLeast(1))
	redis.Kill()
	for _, i := range instances {
		i.WaitReady(t, "polling")
	}
	waitRelay(t, first, 503, `{"status":"unavailable","listener":"up","redis":"down"}`)
	set(40) // nobody is told
	redis.Restart(t)
	for _, i := range instances {
		i.WaitReady(t, "up")
	}
	reach(40)
	set(50)
	reach(50)
	// All rows are changed at once without a row's trigger: the relay passes the call to read everything on.
	db.SQL(t, "truncate audits cascade")
	for _, s := range streams {
		s.WantEvent(t, `{"error":"Audit not found"}`)
	}
	// One relay is enough. Without any the instances know that they hear nothing of changes, though Redis is well.
	harness.NoError(t, first.Cmd.Process.Kill())
	waitRelay(t, second, 200, `{"status":"ready","listener":"up","redis":"up"}`)
	harness.NoError(t, second.Cmd.Process.Signal(syscall.SIGSTOP))
	for _, i := range instances {
		i.WaitReady(t, "polling")
	}
	harness.NoError(t, second.Cmd.Process.Signal(syscall.SIGCONT))
	for _, i := range instances {
		i.WaitReady(t, "up")
	}
}
