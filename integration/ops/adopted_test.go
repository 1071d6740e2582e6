package ops

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// A tablesPage is one of docs/. It has a section for each table that is adopted: blocks of sql, which prepare it, and one of sh, with the command. The table
// itself and the lives of its rows are in a file of the section's name, see adoption.
type tablesPage struct {
	file, folder string
	// other are sections that describe no table, and those whose rows are written by the real queue, in a test of its own.
	other []string
}

// An adoption is a table as somebody has it, how the page adopts it, and rows of it that live and end.
type adoption struct {
	name, feed string
	commands   []string // of the page, in their order: SQL, or for a shell
	tables     string   // SQL that makes them
	mine       jwt.MapClaims
	lives      []rowLife
	// do does a statement of a life and returns what it answers: SQL, or what a worker is told.
	do func(t testing.TB, statement string) string
}

// A rowLife is what is done to one row, and what its owner is shown each time; the first statement returns the row's key.
type rowLife struct {
	name  string
	steps []rowStep
}

// KEY in both is the row's.
type rowStep struct{ statement, shown string }

// prepare makes the tables, and runs the page's SQL.
func (a adoption) prepare(t testing.TB, db harness.Database) {
	t.Helper()
	pgtest.Psql(t, db.Admin, a.tables)
	for _, command := range a.commands {
		if text, ok := strings.CutPrefix(command, "sql\n"); ok {
			pgtest.Psql(t, db.Admin, text)
		}
	}
}

// install runs the page's commands as they stand, but for the feed's name, and that serve's role is granted what it needs.
func (a adoption) install(t testing.TB, db harness.Database) {
	t.Helper()
	installs := 0
	for _, command := range a.commands {
		text, ok := strings.CutPrefix(command, "sh\n")
		if !ok {
			continue
		}
		text = strings.ReplaceAll(text, "--feed jobs", "--feed "+a.feed)
		installs += strings.Count(text, "auditstream install ")
		for _, want := range []string{"Installed on", "nothing to change"} {
			cmd := exec.CommandContext(t.Context(), "sh", "-euc", `auditstream() { "$AUDITSTREAM" "$@" --role `+harness.ServeRole+"; }\n"+text)
			cmd.Dir = t.TempDir()
			cmd.Env = harness.Environment([]string{"AUDITSTREAM=" + harness.Binary(t), "DATABASE_URL=" + db.Admin})
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
				t.Fatalf("%s\n%v\n%s\nwant %s", text, err, out, want)
			}
		}
	}
	if installs == 0 {
		t.Fatalf("the section %q has no command that installs", a.name)
	}
}

// run has viewers see the lives of the rows, strangers nothing.
func (a adoption) run(t *testing.T, i *harness.Instance) {
	t.Helper()
	mine := harness.Token(t, a.mine)
	for _, l := range a.lives {
		a.live(t, i, l, mine)
	}
	i.WantMetric(t, fmt.Sprintf("auditstream_notifications_missed_total{feed=%q}", a.feed), 0)
}

// openAll opens the stream of all that is the viewer's, as soon as serve has found the feed.
func openAll(t testing.TB, i *harness.Instance, feed, mine string) (all *harness.Stream) {
	t.Helper()
	harness.Eventually(t, func() error {
		if all != nil {
			all.Cancel()
		}
		if all = i.Open(t, "/api/v1/sse/"+feed+"/progress", mine); all.Response.StatusCode != http.StatusOK {
			return fmt.Errorf("all of mine: %d", all.Response.StatusCode)
		}
		return nil
	})
	return all
}

// live is one life: both streams show each step, and status the same.
func (a adoption) live(t testing.TB, i *harness.Instance, l rowLife, mine string) {
	t.Helper()
	feed := a.feed
	if name, _, ok := strings.Cut(l.name, ": "); ok {
		feed = name
	}
	all := openAll(t, i, feed, mine)
	defer all.Cancel()
	key, _, _ := strings.Cut(a.do(t, l.steps[0].statement), "\n")
	path := url.PathEscape(key)
	strange(t, i, feed, path)
	one := i.Open(t, "/api/v1/sse/"+feed+"/"+path+"/progress", mine)
	for n, s := range l.steps {
		statement, want := strings.ReplaceAll(s.statement, "KEY", key), strings.ReplaceAll(s.shown, "KEY", key)
		if n > 0 {
			a.do(t, statement)
		}
		if got := one.Next(t).Data; got != want {
			t.Fatalf("%s: after %q\n got %s\nwant %s", l.name, statement, got, want)
		}
		if strings.HasPrefix(want, `{"error"`) { // the row is gone, also from all of mine, which shows only what is there
			continue
		}
		if got := all.Next(t).Data; got != want {
			t.Fatalf("%s: all of mine, after %q\n got %s\nwant %s", l.name, statement, got, want)
		}
		got := i.AskAs(t, mine, "/api/v1/"+feed+"/"+path+"/status")
		if deleted := got.Status == http.StatusNotFound && n == len(l.steps)-1; got.Body != want && !deleted {
			t.Errorf("%s: status after %q: %d %s, want %s", l.name, statement, got.Status, got.Body, want)
		}
	}
	one.Ended(t)
}

// strange asks for a row that is somebody else's.
func strange(t testing.TB, i *harness.Instance, feed, path string) {
	t.Helper()
	stranger := "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "mallory", "email": "mallory@example.com", "groups": []string{"none", ""}})
	for _, of := range []string{"/api/v1/sse/" + feed + "/" + path + "/progress", "/api/v1/" + feed + "/" + path + "/status"} {
		if got := i.Ask(t, "GET", of, "Authorization", stranger); got.Status != http.StatusForbidden || got.Body != harness.CrossUser {
			t.Errorf("a stranger: %s: %d %s", of, got.Status, got.Body)
		}
	}
}

// dump is all that is in a database but the table of audits.sql.
func dump(t testing.TB, db harness.Database) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "pg_dump", "--schema-only", "--exclude-schema=auditstream", "--exclude-table=public.audits*", db.Admin).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(string(out), "")
}

// waitFeedGone waits until serve knows a feed no more.
func waitFeedGone(t testing.TB, i *harness.Instance, feed, mine string) {
	t.Helper()
	harness.WaitIn(t, func() string { return i.AskAs(t, mine, "/api/v1/sse/"+feed+"/progress").Body }, `{"error":"Internal server error"}`)
}

// runAll runs all of a page in one database beside each other, with one serve; nothing is left of them in the end.
func (p tablesPage) runAll(t *testing.T) {
	t.Helper()
	db, i := harness.ServeNew(t, "JWT_GROUPS_CLAIM=groups")
	adoptions := p.adoptions(t)
	for _, a := range adoptions {
		a.prepare(t, db)
	}
	run := func(t testing.TB, statement string) string { return db.SQL(t, statement) }
	before := dump(t, db)
	t.Run("of", func(t *testing.T) {
		for _, a := range adoptions {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				a.do = run
				a.install(t, db)
				a.run(t, i)
				harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall", "--feed", a.feed)
				waitFeedGone(t, i, a.feed, harness.Token(t, a.mine))
			})
		}
	})
	harness.RunCommand(t, []string{"DATABASE_URL=" + db.Admin}, "uninstall")
	harness.Equal(t, dump(t, db), before, "uninstall left something, or took something away")
	db.WantSQL(t, `select (select count(*) from pg_trigger where tgname ~ '^auditstream_') + (select count(*) from pg_namespace where nspname = 'auditstream')`, "0")
}
