package harness

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// StartPgBouncer runs PgBouncer in transaction mode in front of a database and returns the URL through it.
func StartPgBouncer(t testing.TB, dsn string) string {
	t.Helper()
	path := lookPath(t, "install the package pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	target, err := url.Parse(dsn)
	NoError(t, err)
	port, err := FreePort()
	NoError(t, err)
	dir, err := os.MkdirTemp("", "auditstream-pgbouncer-*") // t.TempDir's parents are closed to other accounts
	NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	password, _ := target.User.Password()
	cmd := exec.Command(path, filepath.Join(dir, "pgbouncer.ini"))
	owner := pgbouncerAccount(t, cmd)
	for name, content := range map[string]string{
		"users.txt": fmt.Sprintf("%q %q\n", target.User.Username(), password),
		"pgbouncer.ini": fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
pool_mode = transaction
auth_type = scram-sha-256
auth_file = %s
default_pool_size = 10
`, target.Hostname(), target.Port(), port, filepath.Join(dir, "users.txt")),
	} {
		file := filepath.Join(dir, name)
		NoError(t, os.WriteFile(file, []byte(content), 0o600))
		owner(file)
	}
	owner(dir)

	log := NewLogBuffer()
	cmd.Stderr = log
	done := StartProcess(t, cmd)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an immediate shutdown
		<-done
		if t.Failed() {
			t.Logf("log of pgbouncer:\n%s", log.String())
		}
	})
	target.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	pooled := target.String()
	Eventually(t, func() error {
		conn, err := pgx.Connect(t.Context(), pooled)
		if err != nil {
			return fmt.Errorf("pgbouncer: %w\n%s", err, log.String())
		}
		return conn.Close(t.Context())
	})
	return pooled
}

// pgbouncerAccount lets the command run as somebody else when the tests run as root, which pgbouncer refuses. The
// returned function gives that account a file.
func pgbouncerAccount(t testing.TB, cmd *exec.Cmd) func(file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return func(string) {}
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(account.Uid)
		gid, gidErr := strconv.Atoi(account.Gid)
		if uidErr != nil || gidErr != nil {
			continue
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		cmd.Dir = "/"
		return func(file string) {
			NoError(t, os.Chown(file, uid, gid))
		}
	}
	t.Fatal("pgbouncer refuses to run as root, and there is neither an account postgres nor nobody")
	return nil
}
