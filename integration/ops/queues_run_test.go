package ops

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// A queueWorker is a process that runs a real job queue, and does what it is told line by line; see queues/workers/main.go.
type queueWorker struct {
	stdin  io.Writer
	stderr *harness.LogBuffer
	said   chan string // closed at its end
}

// buildWorkers builds those in Go, which are a module of their own.
var buildWorkers = sync.OnceValues(func() (string, error) {
	return harness.BuildProgram("queue-workers", harness.Path("integration/queues/workers"), ".")
})

// startWorker waits until the queue's tables are there.
func startWorker(t testing.TB, db harness.Database, queue string) *queueWorker {
	t.Helper()
	harness.DependsOn(t, "integration/queues")
	command := []string{"node", harness.Path("integration/queues/node/worker.mjs"), queue}
	if queue == "river" || queue == "gue" {
		path, err := buildWorkers()
		if err != nil {
			t.Fatalf("build the workers: %v", err)
		}
		command = []string{path, queue}
	}
	w := &queueWorker{said: make(chan string, 10), stderr: harness.NewLogBuffer()}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = harness.Environment([]string{"DATABASE_URL=" + db.Admin})
	cmd.Stderr = w.stderr
	stdin, err := cmd.StdinPipe()
	harness.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	harness.NoError(t, err)
	harness.NoError(t, cmd.Start())
	w.stdin = stdin
	go func() {
		defer close(w.said)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			w.said <- lines.Text()
		}
	}()
	t.Cleanup(func() { // a job that was not told to end, after a failure, would go on for ever
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if got := w.hears(t); got != "ready" {
		t.Fatalf("the worker said %q", got)
	}
	return w
}

func (w *queueWorker) hears(t testing.TB) string {
	t.Helper()
	select {
	case line, ok := <-w.said:
		if ok {
			return line
		}
	case <-time.After(harness.Patience):
	}
	t.Fatalf("the worker says nothing, or has ended:\n%s", w.stderr.String())
	panic("unreachable")
}

// do tells it lines, and returns what they were answered.
func (w *queueWorker) do(t testing.TB, lines string) (answers string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if _, err := io.WriteString(w.stdin, strings.TrimSpace(line)+"\n"); err != nil {
			t.Fatalf("tell the worker %q: %v\n%s", line, err, w.stderr.String())
		}
		answer, ok := strings.CutPrefix(w.hears(t), "ok")
		if !ok {
			t.Fatalf("%s: the worker said %q", line, answer)
		}
		answers += strings.TrimSpace(answer)
	}
	return answers
}

// The queues whose workers can be run here are: each with its own migrations, and jobs that report as its documentation has it.
func TestDocsJobQueuesThatRun(t *testing.T) {
	t.Parallel()
	commands := harness.CommandsOf(t, "docs/job-queues.md")
	for _, name := range []string{"River", "pg-boss", "graphile-worker", "gue"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slug := slugOf(name)
			text, err := os.ReadFile(harness.Path("integration/queues/" + slug + ".lives"))
			harness.NoError(t, err)
			db := harness.NewDatabase(t)
			w := startWorker(t, db, strings.ToLower(name))
			a := parseAdoption(t, string(text))
			a.name, a.feed, a.commands, a.do = name, slug, commands[name], w.do
			a.prepare(t, db)
			before := dump(t, db)
			i := harness.ServeReady(t, db.Serve)
			a.install(t, db)
			a.run(t, i)
			harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall", "--feed", a.feed)
			waitFeedGone(t, i, a.feed, harness.AliceToken(t))
			if strings.Contains(a.commands[0], "--create") { // the table is the application's from then on
				db.SQL(t, "drop table "+a.feed)
			}
			harness.Equal(t, dump(t, db), before, "uninstall left something, or took something away")
		})
	}
}
