package ops

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"
)

// reader does what README says, with the database that it starts from: an application's, with its own role.
type reader struct {
	*testing.T
	harness.Database
	terminal *harness.Terminal
	curl     string // which follows audit 1
}

func newReader(t *testing.T) *reader {
	t.Helper()
	server := pgtest.NewServer(t, func(cfg *localpg.Config) { cfg.Port = 5432 })
	r := &reader{T: t, Database: harness.Database{Admin: server.DSN("app")}, terminal: harness.OpenTerminal(t)}
	pgtest.Psql(t, server.DSN("postgres"), "create role owner login createrole password 'password'; create database app owner owner; create database other owner owner")
	pgtest.Psql(t, server.DSN("app"), `set role owner;
		create table audits (id bigint primary key, user_id text not null, status text not null, progress int not null, message text);
		insert into audits select id, 'USER_ID', 'running', 25 from unnest(array[1, 42, 43]) id`)
	pgtest.Psql(t, server.DSN("other"), `set role owner;
		create schema app;
		create table app.jobs (id bigint primary key, status text not null, percent int not null, failure_reason text, message text)`)
	return r
}

// read does each block of README and of the pages, in the order of documented. What others hold, TestDocsCommandsAreRun looks after.
func (r *reader) read() {
	var read []string
	for _, d := range documented {
		if slices.Contains(read, d.page) {
			continue
		}
		read = append(read, d.page)
		for _, block := range harness.DocBlocks(r.T, d.page) {
			if d, ok := become(block); ok && d.do != nil {
				r.Logf("%v", block)
				d.do(r, block.Text)
			}
		}
	}
}

// target finds each line's target in the Makefile. CI runs them.
func (r *reader) target(text string) {
	r.Helper()
	all := "make --dry-run" // at once, which is quicker
	for line := range strings.Lines(text) {
		words, ok := strings.CutPrefix(line, "make ")
		if !ok {
			r.Errorf("no target of make: %s", line)
		}
		words, _, _ = strings.Cut(words, " #")
		all += " " + strings.TrimSpace(words)
	}
	r.terminal.Type(all)
}

// begin is README's first block: the program is built, the table adopted and served.
func (r *reader) begin(text string) {
	r.Helper()
	r.terminal.Type(text)
	r.ready()
}

// endServe ends what the terminal serves.
func (r *reader) endServe() {
	r.Helper()
	r.terminal.Type("kill $!; wait $!")
}

// adopt adopts the table once more, with a role of its own.
func (r *reader) adopt(text string) {
	r.Helper()
	r.endServe()
	r.terminal.Type("auditstream uninstall")
	adopted := func() string { return r.SQL(r.T, "select to_regnamespace('auditstream') is not null") }
	for line := range strings.Lines(text) {
		out := r.terminal.Type(line)
		if strings.Contains(line, "--dry-run") {
			harness.WantIn(r, out, "view auditstream.progress")
			harness.Equal(r, adopted(), "f", "adopted after the dry run")
		}
	}
	if adopted() != "t" || r.SQL(r.T, "select has_table_privilege('auditstream_serve', 'auditstream.progress', 'select')") != "t" {
		r.Error("auditstream_serve cannot read auditstream.progress after install")
	}
}

// mapped adopts a table whose columns have other names, in a database of its own.
func (r *reader) mapped(text string) {
	r.Helper()
	r.terminal.Type("was=$DATABASE_URL DATABASE_URL=postgres://owner:password@localhost/other")
	r.terminal.Type(text)
	r.terminal.Type("DATABASE_URL=$was")
}

// upgrade installs once more what is there, while serve runs.
func (r *reader) upgrade(text string) {
	r.Helper()
	const newest = "select string_agg(oid::text, ' ' order by oid) from pg_trigger where tgname ^@ 'auditstream'"
	before := r.SQL(r.T, newest)
	r.terminal.Type("was=$DATABASE_URL")
	out := r.terminal.Type(text)
	r.terminal.Type("DATABASE_URL=$was")
	if after := r.SQL(r.T, newest); before == "" || after != before {
		r.Errorf("triggers are %s after installing twice, were %s", after, before)
	}
	harness.WantIn(r, out, "version")
}

func (r *reader) serve(text string) {
	r.terminal.Type(text)
	r.ready()
}

func (r *reader) ready() {
	r.Helper()
	(&harness.Instance{URL: "http://localhost:8080"}).WaitReady(r, "up")
}

// follow sees the first state, an update and the end of audit 1 through a command that ends with the stream.
func (r *reader) follow(text string) {
	r.Helper()
	r.update(1, "running", 25)
	r.terminal.Begin(text)
	r.terminal.Says(`data: {"audit_id":1,"status":"running","progress":25}`)
	r.update(1, "running", 55)
	r.terminal.Says(`data: {"audit_id":1,"status":"running","progress":55}`)
	r.update(1, "completed", 100)
	r.terminal.Says(`data: {"audit_id":1,"status":"completed","progress":100}`)
	r.terminal.End()
	r.curl = text
}

func (r *reader) update(id int, status string, progress int) {
	r.Helper()
	r.SQL(r.T, fmt.Sprintf("update audits set status = '%s', progress = %d where id = %d", status, progress, id))
}

// watch follows two audits to their end with one command and one to its 80 % with the next.
func (r *reader) watch(text string) {
	r.Helper()
	const second = "auditstream watch 42 --until 80"
	before, until, found := strings.Cut(text, second)
	if !found {
		r.Fatalf("no %s in:\n%s", second, text)
	}
	r.terminal.Begin(before)
	r.terminal.Says(`{"audit_id":42,"status":"running","progress":25}`, `{"audit_id":43,"status":"running","progress":25}`)
	r.update(43, "completed", 100)
	r.update(42, "completed", 100)
	r.terminal.Says(`{"audit_id":42,"status":"completed","progress":100}`, `{"audit_id":43,"status":"completed","progress":100}`)
	r.terminal.End()

	r.update(42, "running", 79)
	r.terminal.Begin(second + until)
	r.terminal.Says(`{"audit_id":42,"status":"running","progress":79}`)
	r.update(42, "running", 80)
	harness.WantIn(r, r.terminal.End(), `"progress":80`)
}

// redis takes the place of the serve that runs, in a terminal of its own, since the last command stays in the foreground.
func (r *reader) redis(text string) {
	r.Helper()
	redistest.Start(r.T, "--port", "6379")
	exported := filepath.Join(r.TempDir(), "exported")
	r.endServe()
	r.terminal.Type("(umask 077; export -p >'" + exported + "')")
	second := harness.OpenTerminal(r.T)
	second.Type(". '" + exported + "'")
	second.Begin(text)
	// With REDIS_RELAY=on it is up only while a relay is heard.
	r.ready()
	r.follow(r.curl)
	second.Says() // nothing but that no command has failed
	second.Close()
}

// failover finds the server that is left. The names are the reader's to fill in: nobody is at the first address.
func (r *reader) failover(text string) {
	r.Helper()
	filled := strings.Replace(text, "@db1,db2/", "@127.0.0.2,localhost/", 1)
	if filled == text {
		r.Fatalf("no servers db1 and db2:\n%s", text)
	}
	r.terminal.Type(filled)
	r.terminal.Type("auditstream doctor")
}

// scrape is for Prometheus.
func (r *reader) scrape(text string) {
	file := filepath.Join(r.TempDir(), "prometheus.yml")
	harness.NoError(r, os.WriteFile(file, []byte(text), 0o600))
	if out, err := exec.Command("promtool", "check", "config", file).CombinedOutput(); err != nil {
		r.Errorf("promtool (.ci/setup test installs it): %v\n%s", err, out)
	}
}

// fastLoop finds the packages and the test that the block names; they run in any case.
func (r *reader) fastLoop(text string) {
	r.Helper()
	for _, m := range regexp.MustCompile(` \./(\w[\w/]*)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(harness.Path(m[1])); err != nil {
			r.Error(err)
		}
	}
	named := regexp.MustCompile(`-run '\^(\w+)\$'`).FindStringSubmatch(text)
	if named == nil || !testNames(r.T)[named[1]] {
		r.Errorf("the test named here does not exist:\n%s", text)
	}
}
