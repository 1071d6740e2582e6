package integration

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/redistest"
)

// relay runs auditstream relay until the test is over, and checks that it stops when it is told to. What it returns has only an
// admin address.
func relay(t *testing.T, db database, redisURL string) *instance {
	t.Helper()
	i := &instance{log: newLogBuffer()}
	i.cmd = exec.Command(binary(t), "relay")
	i.cmd.Env = environment([]string{"DATABASE_URL=" + db.Serve, "REDIS_URL=" + redisURL, "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "LOG_LEVEL=debug"})
	i.cmd.Stderr = i.log
	i.done = startProcess(t, i.cmd)
	t.Cleanup(func() {
		_ = i.cmd.Process.Signal(syscall.SIGTERM) // it may have been killed
		select {
		case <-i.done:
			if code := i.cmd.ProcessState.ExitCode(); code > 0 {
				t.Errorf("auditstream relay: exit status %d\n%s", code, i.log.String())
			}
		case <-time.After(patience):
			_ = i.cmd.Process.Kill()
			t.Error("auditstream relay does not stop")
		}
		noLeak(t, "auditstream relay", i.log.String(), ownSecrets(i.cmd.Env, nil))
	})
	eventually(t, func() error {
		found := relaying.FindStringSubmatch(i.log.String())
		if found == nil {
			return fmt.Errorf("relay: %s", i.log.String())
		}
		i.Admin = "http://" + found[1]
		return nil
	})
	i.waitRelay(t, 200, `{"status":"ready","listener":"up","redis":"up"}`)
	return i
}

var relaying = regexp.MustCompile(`"msg":"relaying","admin_addr":"([^"]+)"`)

func (i *instance) waitRelay(t *testing.T, status int, body string) {
	t.Helper()
	eventually(t, func() error {
		resp, err := http.Get(i.Admin + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || string(got) != body {
			return fmt.Errorf("/readyz: %d %s %v, want %d %s", resp.StatusCode, got, err, status, body)
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
	first, second := relay(t, db, url), relay(t, db, url)
	var streams []*stream
	var instances []*instance
	for _, need := range []string{"auto", "on"} {
		i := serve(t, db.Serve, "SSE_SOURCE=redis", "REDIS_URL="+url, "REDIS_RELAY="+need, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
		i.waitReady(t, "up")
		instances = append(instances, i)
		s := i.watch(t, "1", alice(t))
		defer s.cancel()
		s.nextProgress(t)
		streams = append(streams, s)
	}
	db.watchedBy(t, "1", 2)
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
	first.waitMetric(t, "auditstream_relay_published_total", atLeast(1))
	redis.Kill()
	for _, i := range instances {
		i.waitReady(t, "polling")
	}
	first.waitRelay(t, 503, `{"status":"unavailable","listener":"up","redis":"down"}`)
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
	// One relay is enough. Without any the instances know that they hear nothing of changes, though Redis is well.
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	second.waitRelay(t, 200, `{"status":"ready","listener":"up","redis":"up"}`)
	if err := second.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, i := range instances {
		i.waitReady(t, "polling")
	}
	if err := second.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, i := range instances {
		i.waitReady(t, "up")
	}
}
