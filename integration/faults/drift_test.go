package faults

import (
	"strings"
	"testing"

	"auditstream/integration/harness"
)

const (
	staleLog  = "no rows are shown: whose they are is read from what is not there any more"
	mendedLog = "the database is as it was when auditstream was installed"
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
			db := harness.NewDatabase(t)
			db.InsertMany(t, 1)
			i := harness.ServeReady(t, db.Serve)
			db.SQL(t, test.change)
			db.SQL(t, `notify auditstream, '*'`)
			line := i.WaitLog(t, harness.ChangedLog)
			if found, _ := line["found"].(string); !strings.Contains(found, test.found) {
				t.Errorf("found %q, want %q in it", found, test.found)
			}
			i.WaitAnswer(t, "/readyz", 200, `{"status":"ready","database":"up","listener":"up","drift":["`+test.kind+`"]}`)
			i.WantMetric(t, `auditstream_drift{kind="`+test.kind+`"}`, 1)
			if run, _ := line["run"].(string); test.kind == "key" {
				harness.WantIn(t, run, "create unique index")
				return
			} else if want := "auditstream install"; !strings.HasPrefix(run, want) {
				t.Fatalf("run %q, want %q", run, want)
			}
			harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, strings.Fields(line["run"].(string))[1:]...)
			i.WaitLog(t, mendedLog)
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
			db := harness.NewDatabase(t)
			id := db.InsertMany(t, 1)[0]
			i := harness.ServeReady(t, db.Serve)
			viewer := i.Open(t, harness.StreamPath(id), harness.AliceToken(t))
			_ = viewer.Next(t)
			db.SQL(t, `begin; `+change+`; notify auditstream, '*'; commit`)
			i.WaitLog(t, staleLog)
			if name == "the table" {
				db.SQL(t, `update audits_old set message = 'hers'`)
			} else {
				db.SQL(t, `update audits set user_id = 'mallory', message = 'hers'`)
			}
			if answer := i.AskAs(t, harness.AliceToken(t), harness.StatusPath(id)); answer.Status != 500 || strings.Contains(answer.Body, "hers") {
				t.Errorf("status: %d %s", answer.Status, answer.Body)
			}
			again := i.Open(t, harness.StreamPath(id), harness.AliceToken(t))
			if body := again.Whole(t); strings.Contains(body, "hers") || !strings.Contains(body, "Internal server error") {
				t.Errorf("a new stream: %s", body)
			}
			if body := viewer.Whole(t); strings.Contains(body, "hers") || !strings.Contains(body, "Internal server error") {
				t.Errorf("the stream that was open: %s", body)
			}
			harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "install", "--role", harness.ServeRole)
			i.WaitLog(t, mendedLog)
			answer := i.AskAs(t, harness.AliceToken(t), harness.StatusPath(id))
			harness.Equal(t, answer.Status, map[string]int{"the table": 200, "the owner's column": 403}[name], "after an install")
		})
	}
}
