package api

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"
)

const (
	installAudits = "AUDITSTREAM_INSTALL=public.audits"
	// auditsOfAlice is a table that knows nothing of auditstream.
	auditsOfAlice = `create table audits (id bigint generated always as identity primary key, url text, user_id text, status text not null default 'running',
		progress int not null default 0)`
	// madeByInstall is another text whenever anything of auditstream's is made, replaced or granted.
	madeByInstall = `select string_agg(c, ' ' order by c) from (
		select concat_ws(':', tgname, oid, xmin) from pg_trigger where tgname ^@ 'auditstream'
		union all select concat_ws(':', relname, oid, xmin) from pg_class where relnamespace = to_regnamespace('auditstream')
		union all select concat_ws(':', proname, oid, xmin) from pg_proc where pronamespace = to_regnamespace('auditstream')
		union all select concat_ws(':', nspname, oid, xmin) from pg_namespace where nspname = 'auditstream') made(c)`
)

// ownTable is a database with somebody's own table, not adopted yet. The role of Serve may connect, and no more.
func ownTable(t *testing.T) harness.Database {
	t.Helper()
	admin := pgtest.New(t)
	harness.MakeRole(t, admin)
	pgtest.Psql(t, admin, auditsOfAlice)
	return harness.Adopted(t, admin)
}

// One command leads from somebody's own table to the first event, and the next start changes nothing.
func TestAPIInstallAtStart(t *testing.T) {
	t.Parallel()
	db := ownTable(t)
	id := db.Insert(t, "", "")
	i := harness.Serve(t, db.Admin, installAudits)
	i.WaitLog(t, "installed")
	i.WaitReady(t, "up")
	s := i.Watch(t, id, harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":`+id+`,"status":"running","progress":0}`)
	db.SQL(t, "update audits set progress = 55")
	s.WantEvent(t, `{"audit_id":`+id+`,"status":"running","progress":55}`)

	before := db.SQL(t, madeByInstall)
	if !strings.Contains(before, "auditstream_update:") {
		t.Fatalf("no triggers among %s", before)
	}
	harness.Serve(t, db.Admin, "--install=audits").WaitLog(t, "installed already, nothing to change")
	db.WantSQL(t, madeByInstall, before)
	db.SQL(t, "drop trigger auditstream_update on audits")
	harness.Serve(t, db.Admin, installAudits).WaitLog(t, "installed")
	harness.WantIn(t, db.SQL(t, madeByInstall), "auditstream_update:")
}

// Where the role may not, the error says what is missing, and its command, run as the owner, is all that it takes.
func TestAPIInstallAtStartAsARoleThatMayNot(t *testing.T) {
	t.Parallel()
	db := ownTable(t)
	start := func() (code int, stdout, stderr string) {
		return harness.TryCommand(t, []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=off", installAudits}, "serve")
	}
	code, stdout, stderr := start()
	if code != 1 || stdout != "" || strings.Contains(stderr, "serving") {
		t.Fatalf("exit status %d, want 1 before it serves\n%s%s", code, stdout, stderr)
	}
	harness.WantIn(t, stderr,
		"--install (AUDITSTREAM_INSTALL) public.audits: ",
		"the role "+harness.ServeRole+" may not create the schema auditstream", "the role "+harness.ServeRole+" may not create triggers on public.audits",
		"auditstream install --table public.audits --role "+harness.ServeRole+"\n",
	)
	_, remedy, _ := strings.Cut(stderr, "and then serve again: auditstream ")
	cmd := exec.Command("sh", "-c", "'"+harness.CommandBinary(t)+"' "+remedy)
	cmd.Env = harness.Environment([]string{"DATABASE_URL=" + db.Admin})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the remedy %s: %v\n%s", remedy, err, out)
	}
	before := db.SQL(t, madeByInstall)
	i := harness.Serve(t, db.Serve, installAudits)
	i.WaitLog(t, "installed already, nothing to change")
	i.WaitReady(t, "up")
	db.WantSQL(t, madeByInstall, before)

	db.SQL(t, "alter table audits disable trigger auditstream_update")
	harness.Serve(t, db.Serve, installAudits).WaitLog(t, "installed already, and this role may not repair it")

	db.SQL(t, "alter table audits rename to former; create table audits (like former)") // another one than is adopted
	if code, _, stderr := start(); code != 1 || !strings.Contains(stderr, "and then serve again: ") {
		t.Errorf("exit status %d for a table that is not adopted, want 1 and the remedy\n%s", code, stderr)
	}
}

// Containers start in any order: a database that does not answer yet is waited for, and whoever waits can be stopped.
func TestAPIInstallAtStartWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	db := ownTable(t)
	const waiting = "the database cannot be reached yet, so nothing is served until it is"
	proxy, later := pgtest.ProxyDSN(t, db.Admin)
	there := strings.Split(strings.SplitAfter(db.Admin, "@")[1], "/")[0]
	proxy.SetTarget("127.0.0.1:1")
	i, _ := harness.BeginServe(t, harness.Binary(t), later, installAudits)
	i.WaitLog(t, waiting)
	proxy.SetTarget(there)
	i.WaitLog(t, "installed")
	i.WaitLog(t, "serving")

	stopped, _ := harness.BeginServe(t, harness.Binary(t), strings.Replace(db.Admin, there, "127.0.0.1:1", 1), installAudits)
	stopped.WaitLog(t, waiting)
	stopped.Signal(t, syscall.SIGTERM)
	if code := stopped.End(t); code != 0 || strings.Contains(stopped.Log.String(), `"serving"`) {
		t.Errorf("exit status %d after SIGTERM, want 0 without having served\n%s", code, stopped.Log.String())
	}
}

// A newer program's schema is served as it is: an older instance may restart during an upgrade.
func TestAPIInstallAtStartLeavesANewerSchema(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	db.SQL(t, "comment on view auditstream.progress is 'auditstream 999 of a later program'")
	before := db.SQL(t, madeByInstall)
	harness.Serve(t, db.Admin, installAudits).WaitReady(t, "up")
	db.WantSQL(t, madeByInstall, before)
}

func TestAPIInstallAtStartIsRefused(t *testing.T) {
	t.Parallel()
	db := ownTable(t)
	for _, tt := range []struct {
		flag string
		code int
		want string
	}{
		{"--install=public.audit", 1, "public.audit"},
		{"--install=", 2, `--install: invalid value ""; give a table as written in SQL, like public.audits`},
	} {
		t.Run(tt.flag, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := harness.TryCommand(t, []string{"DATABASE_URL=" + db.Admin, "JWT_SECRET=" + harness.JWTSecret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=off"}, "serve", tt.flag)
			if code != tt.code || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "serve again") {
				t.Errorf("exit status %d, want %d and %q in\n%s", code, tt.code, tt.want, stderr)
			}
		})
	}
}
