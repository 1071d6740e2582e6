package web

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
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
			first := harness.Serve(t, db.Serve, "SSE_RETRY_MS=200")
			first.WaitReady(t, "up")
			proxy := pgtest.Proxy(t, strings.TrimPrefix(first.URL, "http://"))
			id := db.Insert(t, "status, progress", "'running', 10")
			set := func(change string) { db.SQL(t, "update audits set "+change+" where id = "+id) }

			n := startNode(t, "public.mjs", client, "http://"+proxy.Addr()+"/api/v1/sse/audits/"+id+"/progress")
			n.waitProgress(t, 10)
			set("progress = 20")
			n.waitProgress(t, 20)

			second := harness.Serve(t, db.Serve, "SSE_RETRY_MS=200")
			second.WaitReady(t, "up")
			proxy.SetTarget(strings.TrimPrefix(second.URL, "http://"))
			first.Signal(t, syscall.SIGTERM)
			first.End(t)
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
	out  *harness.LogBuffer
	err  *harness.LogBuffer
	done chan error
}

func startNode(t testing.TB, script string, args ...string) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	cmd.Dir = harness.Path(harness.ClientTestDir)
	cmd.Env = append(os.Environ(), "TOKEN="+harness.AliceToken(t))
	n := &node{out: harness.NewLogBuffer(), err: harness.NewLogBuffer(), done: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = n.out, n.err
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.done <- cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("%s %s said:\n%s%s", script, args[0], n.out.String(), n.err.String())
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
	case err := <-n.done:
		if err != nil {
			t.Errorf("the client ended with %v", err)
		}
	case <-time.After(harness.Patience):
		t.Error("the client did not leave after the end of the audit")
	}
}
