package integration

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"

	"auditstream/internal/pgtest"
)

// newOwnFeeds is a database with feeds of each kind of key: exports (uuid), whose rows end by a word of its own, too; imports (text); and
// mails (integers), which are deleted when they are done.
func newOwnFeeds(t testing.TB) database {
	t.Helper()
	dsn := pgtest.New(t)
	pgtest.Psql(t, dsn, `create table exports (id uuid primary key default gen_random_uuid(), state text not null default 'queued', done int not null default 0, total int not null default 4, kind text, owner text default 'alice');
		create table imports (name varchar(255) primary key, state text, percent int, owner text default 'alice');
		create table mails (id bigserial primary key, created_at timestamptz not null default now(), owner text default 'alice')`)
	db := adopt(t, dsn)
	for _, args := range []string{
		"--feed exports --table exports --column status=state --column progress=done/total --column user_id=owner --field kind --ends cancelled --status done=completed",
		"--feed imports --table imports --column id=name --column status=state --column progress=percent --column user_id=owner",
		"--feed mails --table mails --column status=created_at --status set=running --column progress= --column user_id=owner --deleted completed",
	} {
		command(t, []string{"DATABASE_URL=" + dsn}, append([]string{"install", "--role", role}, strings.Fields(args)...)...)
	}
	return db
}

// watchRun is a watch of the program under way.
type watchRun struct {
	*exec.Cmd
	out, err *rawBody
}

func (i *instance) startWatch(t testing.TB, args ...string) *watchRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchRun{exec.CommandContext(ctx, binary(t), append([]string{"watch"}, args...)...), new(rawBody), new(rawBody)}
	w.Env = environment([]string{"AUDITSTREAM_URL=" + i.URL, "AUDITSTREAM_TOKEN=" + alice(t)})
	w.Stdout, w.Stderr = w.out, w.err
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = w.Wait() })
	return w
}

// says waits for what the watch prints.
func (w *watchRun) says(t testing.TB, body *rawBody, want string) {
	t.Helper()
	eventually(t, func() error {
		if text := body.String(); !strings.Contains(text, want) {
			return &notShown{want, text + w.err.String()}
		}
		return nil
	})
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
	db := newOwnFeeds(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	id := strings.Fields(db.sql(t, `insert into exports (kind) values ('pdf') returning id`))[0]
	other := strings.Fields(db.sql(t, `insert into exports (kind) values ('csv') returning id`))[0]
	db.sql(t, `insert into imports values ('a/b, 50% "ä"', 'running', 10), ('..', 'running', 20)`)
	db.sql(t, `insert into mails default values`)

	export := i.startWatch(t, "exports/"+strings.ToUpper(id))
	export.says(t, export.out, `{"id":"`+id+`","status":"queued","progress":0,"kind":"pdf"}`)
	both := i.startWatch(t, "exports/"+id, "exports/"+other)
	both.says(t, both.out, other)
	texts := i.startWatch(t, `imports/a%2Fb, 50%25 "ä"`, "imports/..")
	texts.says(t, texts.out, `{"id":"..","status":"running","progress":20}`)
	mail := i.startWatch(t, "mails/1")
	mail.says(t, mail.out, `{"id":1,"status":"running","progress":0}`)
	all := i.startWatch(t, "exports/")
	all.says(t, all.out, id)
	i.waitMetric(t, `auditstream_streams_open{feed="exports"}`, func(open float64) bool { return open == 3 })
	i.waitMetric(t, `auditstream_events_sent_total{feed="imports"}`, func(sent float64) bool { return sent == 2 })

	db.sql(t, `update exports set state = ' Cancelled ', done = 1`)
	export.ends(t, 3, "exports/"+strings.ToUpper(id)+": cancelled")
	export.says(t, export.out, `{"id":"`+id+`","status":"cancelled","progress":25,"kind":"pdf"}`)
	both.ends(t, 3, "exports/"+other+": cancelled")
	db.sql(t, `update imports set state = 'completed', percent = 100`)
	texts.ends(t, 0, "")
	if n := i.metric(t, `auditstream_commit_to_flush_seconds_count{feed="imports"}`); n != 2 {
		t.Errorf("the time from the commit was measured %v times, want 2", n)
	}
	db.sql(t, `delete from mails`)
	mail.ends(t, 0, "")
	mail.says(t, mail.out, `{"id":1,"status":"completed","progress":100}`)
	for _, w := range []*watchRun{export, both, texts, mail} { // ends are known without asking again
		if bytes.Contains([]byte(w.err.String()), []byte("trying again")) {
			t.Errorf("%s: %s", w.Args[2:], w.err.String())
		}
	}

	db.sql(t, `insert into exports (kind) values ('later')`)
	all.says(t, all.out, `"kind":"later"`)
	db.sql(t, `update exports set state = 'done', done = 4 where kind = 'later'`)
	all.says(t, all.out, `"status":"completed","progress":100,"kind":"later"`)
	db.sql(t, `insert into exports (kind) select n::text from generate_series(1, 501) n`)
	more := i.startWatch(t, "exports/")
	more.says(t, more.err, "exports/: there are more; these are the newest that have not ended")

	for args, want := range map[string]string{
		"exports/42": "Invalid id: give a UUID", "mails/x": "Invalid id: give a whole number", "imports/none": "No such row", "nothing/42": "No such feed",
		"mails/2 mails/3": "No such row: 2", "42": "Audit not found",
	} {
		i.startWatch(t, strings.Fields(args)...).ends(t, 4, want)
	}
}

type notShown struct{ want, text string }

func (e *notShown) Error() string { return "no " + e.want + " in the terminal, which shows " + e.text }
