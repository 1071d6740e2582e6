package integration

import (
	"fmt"
	"strings"
	"testing"
)

const (
	changedLog = "the database is not as it was when auditstream was installed"
	staleLog   = "no rows are shown: whose they are is read from what is not there any more"
	mendedLog  = "the database is as it was when auditstream was installed"
)

// What somebody changes is said by serve once, with the command that mends it, and to strangers by its kind alone.
func TestU1ReplacedColumnIsSaidByServe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ change, kind, found string }{
		"a column":     {`alter table audits add p2 int; alter table audits rename progress to progress_old; alter table audits rename p2 to progress`, "column", "progress_old"},
		"a trigger":    {`alter table audits disable trigger auditstream_update`, "object", "disabled"},
		"row security": {`alter table auditstream.choices enable row level security`, "choices", "auditstream.choices"},
		"a key":        {`alter table audits drop constraint audits_pkey`, "key", "unique"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.insertMany(t, 1)
			i := serve(t, db.Serve)
			i.waitReady(t, "up")
			db.sql(t, test.change)
			db.sql(t, `notify auditstream, '*'`)
			line := i.waitLog(t, changedLog)
			if found, _ := line["found"].(string); !strings.Contains(found, test.found) {
				t.Errorf("found %q, want %q in it", found, test.found)
			}
			eventually(t, func() error {
				want := `{"status":"ready","database":"up","listener":"up","drift":["` + test.kind + `"]}`
				if _, body := i.get(t, "/readyz"); body != want {
					return fmt.Errorf("/readyz: %s, want %s", body, want)
				}
				return nil
			})
			if got := i.metric(t, `auditstream_drift{kind="`+test.kind+`"}`); got != 1 {
				t.Errorf("the metric is %v, want 1", got)
			}
			if run, _ := line["run"].(string); test.kind == "key" {
				if !strings.Contains(run, "create unique index") {
					t.Errorf("run %q", run)
				}
				return
			} else if want := "auditstream install"; !strings.HasPrefix(run, want) {
				t.Fatalf("run %q, want %q", run, want)
			}
			command(t, []string{"DATABASE_URL=" + db.Admin}, strings.Fields(line["run"].(string))[1:]...)
			i.waitLog(t, mendedLog)
		})
	}
}

// Where the owner's column was replaced nothing is shown, to those who watch neither, until install has been run again.
func TestU1NothingIsShownByAStaleOwner(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"the owner's column": `alter table audits rename user_id to user_old; alter table audits add user_id text`,
		"the table": `create table audits_new (like audits including all); insert into audits_new overriding system value select * from audits;
			alter table audits rename to audits_old; alter table audits_new rename to audits`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			id := db.insertMany(t, 1)[0]
			i := serve(t, db.Serve)
			i.waitReady(t, "up")
			viewer := i.open(t, streamPath(id), alice(t))
			_ = viewer.next(t)
			db.sql(t, `begin; `+change+`; notify auditstream, '*'; commit`)
			i.waitLog(t, staleLog)
			if name == "the table" {
				db.sql(t, `update audits_old set message = 'hers'`)
			} else {
				db.sql(t, `update audits set user_id = 'mallory', message = 'hers'`)
			}
			if answer := i.ask(t, "GET", statusPath(id), "Authorization", "Bearer "+alice(t)); answer.Status != 500 || strings.Contains(answer.Body, "hers") {
				t.Errorf("status: %d %s", answer.Status, answer.Body)
			}
			again := i.open(t, streamPath(id), alice(t))
			if body := again.whole(t); strings.Contains(body, "hers") || !strings.Contains(body, "Internal server error") {
				t.Errorf("a new stream: %s", body)
			}
			if body := viewer.whole(t); strings.Contains(body, "hers") || !strings.Contains(body, "Internal server error") {
				t.Errorf("the stream that was open: %s", body)
			}
			command(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--role", role)
			i.waitLog(t, mendedLog)
			answer := i.ask(t, "GET", statusPath(id), "Authorization", "Bearer "+alice(t))
			if want := map[string]int{"the table": 200, "the owner's column": 403}[name]; answer.Status != want {
				t.Errorf("after an install: %d, want %d", answer.Status, want)
			}
		})
	}
}
