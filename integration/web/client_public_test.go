package web

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

// TestClientPublicOnes takes each client of the table in internal/server/web/client/README.md, with its recipe of public.mjs,
// through an audit, a restart in the middle of it, and its end: it must then leave by itself.
func TestClientPublicOnes(t *testing.T) {
	t.Parallel()
	harness.NodeModules(t)
	db := harness.NewDatabase(t)
	for _, client := range []string{
		"watchAudit", "AuthEventSource", "eventsource", "event-source-polyfill", "@microsoft/fetch-event-source", "eventsource-client",
	} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			first := harness.ServeReady(t, db.Serve, "SSE_RETRY_MS=200")
			proxy := pgtest.Proxy(t, strings.TrimPrefix(first.URL, "http://"))
			id := db.Insert(t, "status, progress", "'running', 10")
			set := func(change string) { db.SQL(t, "update audits set "+change+" where id = "+id) }

			n := startNode(t, "public.mjs", client, "http://"+proxy.Addr()+"/api/v1/sse/audits/"+id+"/progress")
			n.waitProgress(t, 10)
			set("progress = 20")
			n.waitProgress(t, 20)

			second := harness.ServeReady(t, db.Serve, "SSE_RETRY_MS=200")
			proxy.SetTarget(strings.TrimPrefix(second.URL, "http://"))
			first.Stop(t)
			set("progress = 30") // while nobody listens, or as good as
			n.waitProgress(t, 30)
			set("status = 'completed', progress = 100")
			n.waitProgress(t, 100)
			n.left(t)
		})
	}
}

// node is a running script of internal/server/web/client/test.
type node struct {
	cmd  *exec.Cmd
	out  *harness.LogBuffer
	done chan struct{}
}

func startNode(t testing.TB, script string, args ...string) *node {
	t.Helper()
	n := &node{cmd: exec.Command("node", append([]string{script}, args...)...), out: harness.NewLogBuffer()}
	log := harness.NewLogBuffer()
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = harness.Path(harness.ClientTestDir), n.out, log
	n.cmd.Env = append(os.Environ(), "TOKEN="+harness.AliceToken(t))
	n.done = harness.StartProcess(t, n.cmd)
	t.Cleanup(func() {
		_ = n.cmd.Process.Kill() // it may have ended
		<-n.done
		if t.Failed() {
			t.Logf("%s %s said:\n%s%s", script, args[0], n.out.String(), log.String())
		}
	})
	return n
}

// waitProgress waits until the script has printed an event with the progress.
func (n *node) waitProgress(t testing.TB, want int) {
	t.Helper()
	deadline := time.After(harness.Patience)
	for {
		changed := n.out.Changed()
		for line := range strings.Lines(n.out.String()) {
			var event struct{ Progress int }
			if json.Unmarshal([]byte(line), &event) == nil && event.Progress == want {
				return
			}
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no event with progress %d", want)
		}
	}
}

// left waits until the script has ended by itself.
func (n *node) left(t testing.TB) {
	t.Helper()
	select {
	case <-n.done:
		harness.Equal(t, n.cmd.ProcessState.ExitCode(), 0, "the client ended with status")
	case <-time.After(harness.Patience):
		t.Error("the client did not leave after the end of the audit")
	}
}
