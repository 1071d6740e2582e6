package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
	"auditstream/internal/redistest"
)

// reader does what README says, with the database that it starts from: an application's, with its own role.
type reader struct {
	*testing.T
	database
	terminal *terminal
	curl     string // which follows audit 1
}

func newReader(t *testing.T) *reader {
	t.Helper()
	server := pgtest.NewServer(t, func(cfg *localpg.Config) { cfg.Port = 5432 })
	r := &reader{T: t, database: database{Admin: server.DSN("app")}, terminal: openTerminal(t)}
	pgtest.Psql(t, server.DSN("postgres"), "create role owner login createrole password 'password'; create database app owner owner; create database other owner owner")
	pgtest.Psql(t, server.DSN("app"), `set role owner;
		create table audits (id bigint primary key, user_id text not null, status text not null, progress int not null, message text);
		insert into audits select id, 'USER_ID', 'running', 25 from unnest(array[1, 42, 43]) id`)
	pgtest.Psql(t, server.DSN("other"), `set role owner;
		create schema app;
		create table app.jobs (id bigint primary key, status text not null, percent int not null, failure_reason text, message text)`)
	return r
}

// read runs each block of README, or knows who does.
func (r *reader) read() {
	steps := map[string]func(text string){
		"make run":                              r.target,
		"make test\n":                           r.target,
		"make help ":                            r.target,
		"make release ":                         r.target,
		"make build && export PATH=":            r.adopt,
		"auditstream install --table app.jobs ": r.mapped,
		"auditstream doctor ":                   r.upgrade,
		"export DATABASE_URL=":                  r.serve,
		"curl -N -H \"Authorization: Bearer ":   r.follow,
		"export AUDITSTREAM_URL=":               r.watch,
		"location /api/ {":                      r.nginx,
		"export REDIS_URL=":                     r.redis,
		"DATABASE_URL='":                        r.failover,
		"scrape_configs:":                       r.scrape,
	}
	used := map[string]bool{}
	for _, block := range docBlocks(r.T, "README.md") {
		var step func(string)
		for begin, s := range steps {
			if strings.HasPrefix(block.text, begin) {
				step, used[begin] = s, true
			}
		}
		for begin, test := range heldElsewhere {
			if strings.HasPrefix(block.text, begin) {
				step, used[begin] = func(string) {
					if test != "" && !isTest(r.T, test) {
						r.Errorf("%s should hold this, but there is no such test: %v", test, block)
					}
				}, true
			}
		}
		if step == nil {
			r.Errorf("README.md has a command block that no test runs; add it to TestReadme: %v", block)
			continue
		}
		r.Logf("%v", block)
		step(block.text)
	}
	for begin := range steps {
		if !used[begin] {
			r.Errorf("README.md has no block any more that begins with %q", begin)
		}
	}
	for begin := range heldElsewhere {
		if !used[begin] {
			r.Errorf("README.md has no block any more that begins with %q", begin)
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
	r.terminal.run(all)
}

// adopt is the first block: the program is built and the table adopted.
func (r *reader) adopt(text string) {
	r.Helper()
	adopted := func() string { return r.sql(r.T, "select to_regnamespace('auditstream') is not null") }
	for line := range strings.Lines(text) {
		out := r.terminal.run(line)
		if strings.Contains(line, "--dry-run") {
			if !strings.Contains(out, "view auditstream.progress") {
				r.Errorf("the dry run prints no view:\n%s", out)
			}
			if adopted() != "f" {
				r.Error("the dry run has installed something")
			}
		}
	}
	if adopted() != "t" || r.sql(r.T, "select has_table_privilege('auditstream_serve', 'auditstream.progress', 'select')") != "t" {
		r.Error("auditstream_serve cannot read auditstream.progress after install")
	}
}

// mapped adopts a table whose columns have other names, in a database of its own.
func (r *reader) mapped(text string) {
	r.Helper()
	r.terminal.run("was=$DATABASE_URL DATABASE_URL=postgres://owner:password@localhost/other")
	r.terminal.run(text)
	r.terminal.run("DATABASE_URL=$was")
}

// upgrade installs once more what is there, while serve runs.
func (r *reader) upgrade(text string) {
	r.Helper()
	const newest = "select string_agg(oid::text, ' ' order by oid) from pg_trigger where tgname ^@ 'auditstream'"
	before := r.sql(r.T, newest)
	r.terminal.run("was=$DATABASE_URL")
	out := r.terminal.run(text)
	r.terminal.run("DATABASE_URL=$was")
	if after := r.sql(r.T, newest); before == "" || after != before {
		r.Errorf("triggers are %s after installing twice, were %s", after, before)
	}
	if !strings.Contains(out, "version") {
		r.Errorf("doctor does not say which version is installed:\n%s", out)
	}
}

func (r *reader) serve(text string) {
	r.terminal.run(text)
	r.ready()
}

func (r *reader) ready() {
	r.Helper()
	eventually(r.T, func() error {
		resp, err := http.Get("http://localhost:8080/readyz")
		if err != nil {
			return err
		}
		if body := readAll(r.T, resp.Body); !strings.Contains(body, `"listener":"up"`) {
			return fmt.Errorf("/readyz: %d %s", resp.StatusCode, body)
		}
		return nil
	})
}

// follow sees the first state, an update and the end of audit 1 through a command that ends with the stream.
func (r *reader) follow(text string) {
	r.Helper()
	r.update(1, "running", 25)
	r.terminal.begin(text)
	r.terminal.says(`data: {"audit_id":1,"status":"running","progress":25}`)
	r.update(1, "running", 55)
	r.terminal.says(`data: {"audit_id":1,"status":"running","progress":55}`)
	r.update(1, "completed", 100)
	r.terminal.says(`data: {"audit_id":1,"status":"completed","progress":100}`)
	r.terminal.end()
	r.curl = text
}

func (r *reader) update(id int, status string, progress int) {
	r.Helper()
	r.sql(r.T, fmt.Sprintf("update audits set status = '%s', progress = %d where id = %d", status, progress, id))
}

// watch follows two audits to their end with one command and one to its 80 % with the next.
func (r *reader) watch(text string) {
	r.Helper()
	const second = "auditstream watch 42 --until 80"
	before, until, found := strings.Cut(text, second)
	if !found {
		r.Fatalf("no %s in:\n%s", second, text)
	}
	r.terminal.begin(before)
	r.terminal.says(`{"audit_id":42,"status":"running","progress":25}`, `{"audit_id":43,"status":"running","progress":25}`)
	r.update(43, "completed", 100)
	r.update(42, "completed", 100)
	r.terminal.says(`{"audit_id":42,"status":"completed","progress":100}`, `{"audit_id":43,"status":"completed","progress":100}`)
	r.terminal.end()

	r.update(42, "running", 79)
	r.terminal.begin(second + until)
	r.terminal.says(`{"audit_id":42,"status":"running","progress":79}`)
	r.update(42, "running", 80)
	if out := r.terminal.end(); !strings.Contains(out, `"progress":80`) {
		r.Errorf("%s has ended before that:\n%s", second, out)
	}
}

// nginx passes the stream through the location.
func (r *reader) nginx(text string) {
	r.Helper()
	dir, addr := r.TempDir(), quietAddr(r.T)
	config := "pid " + dir + "/pid;\nevents {}\nhttp {\naccess_log off;\n" + temporaryPaths(dir) + "server {\nlisten " + addr + ";\n" + text + "}\n}\n"
	path := filepath.Join(dir, "nginx.conf")
	program(r.T, "nginx", path, config)(addr, "-e", dir+"/error.log", "-p", dir, "-c", path, "-g", "daemon off;")
	direct := r.curl
	if !strings.Contains(direct, "localhost:8080") {
		r.Fatalf("curl asks somebody else:\n%s", direct)
	}
	r.follow(strings.Replace(direct, "localhost:8080", addr, 1))
	r.curl = direct
}

// redis takes the place of the serve that runs, in a terminal of its own, since the last command stays in the foreground.
func (r *reader) redis(text string) {
	r.Helper()
	redistest.Start(r.T, "--port", "6379")
	exported := filepath.Join(r.TempDir(), "exported")
	r.terminal.run("kill $!; wait $!\n(umask 077; export -p >'" + exported + "')")
	second := openTerminal(r.T)
	second.run(". '" + exported + "'")
	second.begin(text)
	// With REDIS_RELAY=on it is up only while a relay is heard.
	r.ready()
	r.follow(r.curl)
	second.says() // nothing but that no command has failed
	second.close()
}

// failover finds the server that is left. The names are the reader's to fill in: nobody is at the first address.
func (r *reader) failover(text string) {
	r.Helper()
	filled := strings.Replace(text, "@db1,db2/", "@127.0.0.2,localhost/", 1)
	if filled == text {
		r.Fatalf("no servers db1 and db2:\n%s", text)
	}
	r.terminal.run(filled)
	r.terminal.run("auditstream doctor")
}

// scrape is for Prometheus.
func (r *reader) scrape(text string) {
	file := filepath.Join(r.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	if out, err := exec.Command("promtool", "check", "config", file).CombinedOutput(); err != nil {
		r.Errorf("promtool (.ci/setup test installs it): %v\n%s", err, out)
	}
}
