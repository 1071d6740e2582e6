package ops

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
)

// oldPrograms makes a directory of PostgreSQL 14's programs for pg_upgrade. Those from npm lack two: pg_controldata of 15 and 16 reads 14's
// file, and says all that pg_upgrade wants to hear of pg_resetwal but where the log goes on.
const oldPrograms = `set -e
cp -a "$(dirname "$NPM")" "$DIR/old"
ln -s "$NEW_BIN/pg_controldata" "$OLD_BIN/pg_controldata"
cat >"$OLD_BIN/pg_resetwal" <<END
#!/bin/sh
for last; do :; done
[ "\$last" != -V ] || exec "$NEW_BIN/pg_resetwal" -V
"$NEW_BIN/pg_controldata" "\$last" && echo "First log segment after reset:        000000010000000000000010"
END
chmod +x "$OLD_BIN/pg_resetwal"
"$OLD_BIN/initdb" -D "$OLD_DATA" -A trust -E UTF8 --no-locale
`

// TestPgUpgrade runs what docs/backup-and-migrations.md says of pg_upgrade, from PostgreSQL 14 of npm to this machine's 15 or 16. It is
// not a part of make test.
func TestPgUpgrade(t *testing.T) {
	t.Parallel()
	newer := newerPrograms(t)
	npm, err := exec.CommandContext(t.Context(), harness.Path(".ci/postgres"), "14").Output()
	if err != nil {
		t.Fatalf(".ci/postgres 14: %v", err)
	}
	dir, err := os.MkdirTemp("", "auditstream-upgrade-*") // not t.TempDir, which root alone may enter
	harness.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	account, credential := serverAccount(t)
	if credential != nil {
		harness.NoError(t, os.Chown(dir, int(credential.Uid), int(credential.Gid)))
	}
	env := []string{"DIR=" + dir, "NPM=" + strings.TrimSpace(string(npm)), "OLD_BIN=" + dir + "/old/bin", "OLD_DATA=" + dir + "/14", "NEW_BIN=" + newer,
		"NEW_DATA=" + dir + "/new", "PATH=" + newer + ":" + os.Getenv("PATH"), "LC_ALL=C"}
	run := func(script string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, env, &syscall.SysProcAttr{Credential: credential}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	// Nobody but this machine's accounts that may enter the directory can connect.
	start := func(programs, data string) {
		t.Helper()
		stop := fmt.Sprintf(`! "$%s/pg_ctl" -D "$%s" status >pg_ctl.log || "$%[1]s/pg_ctl" -D "$%[2]s" -m fast -w stop >pg_ctl.log`, programs, data)
		t.Cleanup(func() {
			cmd := exec.Command("bash", "-c", stop)
			cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, env, &syscall.SysProcAttr{Credential: credential}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("stop the server: %v\n%s", err, out)
			}
		})
		run(fmt.Sprintf(`"$%s/pg_ctl" -D "$%s" -w -l "$DIR/log" -o "-c listen_addresses= -c unix_socket_directories=$DIR" start >pg_ctl.log`, programs, data))
	}
	url := func(role, database string) string {
		return (&url.URL{Scheme: "postgres", User: url.User(role), Path: "/" + database, RawQuery: url.Values{"host": {dir}, "port": {"5432"}}.Encode()}).String()
	}

	run(oldPrograms)
	start("OLD_BIN", "OLD_DATA")
	pgtest.Psql(t, url(account, "postgres"), "create role owner login; create role auditstream_serve login; create database app owner owner")
	app := harness.Database{Admin: url("owner", "app"), Serve: url("auditstream_serve", "app")}
	app.SQL(t, `create table audits (id bigint primary key, user_id text not null, status text not null, progress int not null);
		insert into audits select id, 'alice', 'running', 10 from generate_series(1, 50) id`)
	install := []string{"install", "--table", "public.audits", "--role", "auditstream_serve"}
	harness.RunCommand(t, []string{"DATABASE_URL=" + app.Admin}, install...)
	i := harness.ServeReady(t, app.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	s := i.Watch(t, "7", harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":7,"status":"running","progress":10}`)

	run(`"$OLD_BIN/pg_ctl" -D "$OLD_DATA" -m fast -w stop && "$NEW_BIN/initdb" -D "$NEW_DATA" -A trust -E UTF8 --no-locale`)
	for _, block := range harness.DocBlocks(t, backupPage) {
		if strings.HasPrefix(block.Text, "pg_upgrade ") {
			run(block.Text)
		}
	}
	start("NEW_BIN", "NEW_DATA")
	i.WaitReady(t, "up")
	app.SQL(t, "update audits set progress = 20 where id = 7")
	s.WantEvent(t, `{"audit_id":7,"status":"running","progress":20}`)
	harness.RunCommand(t, []string{"DATABASE_URL=" + app.Admin}, install...)
	harness.RunCommand(t, []string{"DATABASE_URL=" + app.Serve, "JWT_SECRET=" + harness.JWTSecret}, "doctor")
	app.SQL(t, "update audits set progress = 30 where id = 7")
	s.WantEvent(t, `{"audit_id":7,"status":"running","progress":30}`)
}

// newerPrograms is where this machine's PostgreSQL 15 or 16 is, with all of its programs.
func newerPrograms(t *testing.T) string {
	t.Helper()
	beside, err := localpg.FindBinaries(t.Context())
	harness.NoError(t, err)
	debian, _ := filepath.Glob("/usr/lib/postgresql/1[56]/bin") // its only error is a bad pattern
	for _, dir := range append([]string{beside}, debian...) {
		version, err := exec.CommandContext(t.Context(), filepath.Join(dir, "pg_upgrade"), "--version").Output()
		if err == nil && (strings.Contains(string(version), ") 15.") || strings.Contains(string(version), ") 16.")) {
			return dir
		}
	}
	t.Fatal("no pg_upgrade of PostgreSQL 15 or 16: install one of them")
	return ""
}

// serverAccount is whom PostgreSQL runs as, which root it refuses to.
func serverAccount(t *testing.T) (name string, credential *syscall.Credential) {
	t.Helper()
	if os.Geteuid() != 0 {
		u, err := user.Current()
		harness.NoError(t, err)
		return u.Username, nil
	}
	u, err := user.Lookup("nobody")
	harness.NoError(t, err)
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // numbers, on Linux
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return u.Username, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
