package api

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// watchRun is a watch of the program under way.
type watchRun struct {
	*exec.Cmd
	out, err *harness.RawBody
}

func startWatch(t testing.TB, i *harness.Instance, args ...string) *watchRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchRun{exec.CommandContext(ctx, harness.Binary(t), append([]string{"watch"}, args...)...), new(harness.RawBody), new(harness.RawBody)}
	w.Env = harness.Environment([]string{"AUDITSTREAM_URL=" + i.URL, "AUDITSTREAM_TOKEN=" + harness.AliceToken(t)})
	w.Stdout, w.Stderr = w.out, w.err
	harness.NoError(t, w.Start())
	t.Cleanup(func() { cancel(); _ = w.Wait() })
	return w
}

// says waits for what the watch prints.
func (w *watchRun) says(t testing.TB, body *harness.RawBody, want string) {
	t.Helper()
	harness.WaitIn(t, body.String, want)
}

// ends waits for the end.
func (w *watchRun) ends(t testing.TB, code int, stderr string) {
	t.Helper()
	_ = w.Wait() // the status says how it went
	if got := w.ProcessState.ExitCode(); got != code || !strings.Contains(w.err.String(), stderr) {
		t.Errorf("exit status %d, want %d with %q; printed\n%s%s", got, code, stderr, w.out.String(), w.err.String())
	}
}

func TestAPIWatchFeeds(t *testing.T) {
	t.Parallel()
	db := harness.NewFeedsDatabase(t)
	i := harness.ServeReady(t, db.Serve)
	id := strings.Fields(db.SQL(t, `insert into exports (kind) values ('pdf') returning id`))[0]
	other := strings.Fields(db.SQL(t, `insert into exports (kind) values ('csv') returning id`))[0]
	db.SQL(t, `insert into imports values ('a/b, 50% "ä"', 'running', 10), ('..', 'running', 20)`)
	db.SQL(t, `insert into mails default values`)

	export := startWatch(t, i, "exports/"+strings.ToUpper(id))
	export.says(t, export.out, `{"id":"`+id+`","status":"queued","progress":0,"kind":"pdf"}`)
	both := startWatch(t, i, "exports/"+id, "exports/"+other)
	both.says(t, both.out, other)
	texts := startWatch(t, i, `imports/a%2Fb, 50%25 "ä"`, "imports/..")
	texts.says(t, texts.out, `{"id":"..","status":"running","progress":20}`)
	mail := startWatch(t, i, "mails/1")
	mail.says(t, mail.out, `{"id":1,"status":"running","progress":0}`)
	all := startWatch(t, i, "exports/")
	all.says(t, all.out, id)
	i.WaitMetric(t, `auditstream_streams_open{feed="exports"}`, func(open float64) bool { return open == 3 })
	i.WaitMetric(t, `auditstream_events_sent_total{feed="imports"}`, func(sent float64) bool { return sent == 2 })

	db.SQL(t, `update exports set state = ' Cancelled ', done = 1`)
	export.ends(t, 3, "exports/"+strings.ToUpper(id)+": cancelled")
	export.says(t, export.out, `{"id":"`+id+`","status":"cancelled","progress":25,"kind":"pdf"}`)
	both.ends(t, 3, "exports/"+other+": cancelled")
	db.SQL(t, `update imports set state = 'completed', percent = 100`)
	texts.ends(t, 0, "")
	i.WantMetric(t, `auditstream_commit_to_flush_seconds_count{feed="imports"}`, 2)
	db.SQL(t, `delete from mails`)
	mail.ends(t, 0, "")
	mail.says(t, mail.out, `{"id":1,"status":"completed","progress":100}`)
	for _, w := range []*watchRun{export, both, texts, mail} { // ends are known without asking again
		if bytes.Contains([]byte(w.err.String()), []byte("trying again")) {
			t.Errorf("%s: %s", w.Args[2:], w.err.String())
		}
	}

	db.SQL(t, `insert into exports (kind) values ('later')`)
	all.says(t, all.out, `"kind":"later"`)
	db.SQL(t, `update exports set state = 'done', done = 4 where kind = 'later'`)
	all.says(t, all.out, `"status":"completed","progress":100,"kind":"later"`)
	db.SQL(t, `insert into exports (kind) select n::text from generate_series(1, 501) n`)
	more := startWatch(t, i, "exports/")
	more.says(t, more.err, "exports/: there are more; these are the newest that have not ended")

	for args, want := range map[string]string{
		"exports/42": "Invalid id: give a UUID", "mails/x": "Invalid id: give a whole number", "imports/none": "No such row", "nothing/42": "No such feed",
		"mails/2 mails/3": "No such row: 2", "42": "Audit not found",
	} {
		startWatch(t, i, strings.Fields(args)...).ends(t, 4, want)
	}
}
