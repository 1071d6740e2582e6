package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestPitfall06TransactionPoolerWithListenURL(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	pooled := pgbouncer(t, db.Serve)
	i := serve(t, pooled, "DATABASE_LISTEN_URL="+db.Serve, "SSE_FALLBACK_DB_INTERVAL_SECONDS=3600")
	i.waitReady(t, "up")
	viewers := i.crowd(t, 30, db.insertMany(t, 5), nil)
	for n := range 10 {
		db.set(t, n+1)
		for _, v := range viewers {
			v.reached(t, n+1)
		}
	}
	if got := i.metric(t, missed); got != 0 {
		t.Errorf("%v missed notifications, want 0", got)
	}
}

// LISTEN succeeds behind a transaction pooler, and nothing ever comes.
func TestPitfall06TransactionPoolerWithoutListenURLPolls(t *testing.T) {
	t.Parallel()
	const complaint = "LISTEN does not work on this connection: polling only. Set DATABASE_LISTEN_URL to a direct connection to the primary (a transaction pooler or a standby cannot LISTEN)"
	db := newDatabase(t)
	i := serve(t, pgbouncer(t, db.Serve), "SSE_FALLBACK_DB_INTERVAL_SECONDS=1")
	ids := db.insertMany(t, 2)
	eventually(t, func() error { // on a busy machine the first connections by way of the pooler take seconds
		resp, err := http.DefaultClient.Do(request(t, t.Context(), i.URL+"/api/v1/audits/"+ids[0]+"/status", alice(t)))
		if err != nil {
			return err
		}
		if body := readAll(t, resp.Body); resp.StatusCode != 200 {
			return fmt.Errorf("status: %d %s", resp.StatusCode, body)
		}
		return nil
	})
	viewers := i.crowd(t, 10, ids, nil)
	i.waitLog(t, complaint)
	i.waitReady(t, "polling")
	for n := range 3 {
		db.set(t, n+1)
		for _, v := range viewers {
			v.reached(t, n+1)
		}
	}
	i.waitReady(t, "polling")
	if got := strings.Count(i.log.String(), complaint); got != 1 {
		t.Errorf("the log says %d times that LISTEN does not work, want once", got)
	}
}

// pgbouncer runs PgBouncer in transaction mode in front of a database and returns the URL through it.
func pgbouncer(t testing.TB, dsn string) string {
	t.Helper()
	path := lookPath(t, "install the package pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	target, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "auditstream-pgbouncer-*") // t.TempDir's parents are closed to other accounts
	if err != nil {
		t.Fatal(err)
	}
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
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		owner(file)
	}
	owner(dir)

	log := newLogBuffer()
	cmd.Stderr = log
	done := startProcess(t, cmd)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an immediate shutdown
		<-done
		if t.Failed() {
			t.Logf("log of pgbouncer:\n%s", log.String())
		}
	})
	target.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	pooled := target.String()
	eventually(t, func() error {
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
			if err := os.Chown(file, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatal("pgbouncer refuses to run as root, and there is neither an account postgres nor nobody")
	return nil
}

// freePort looks below the range from which the system takes the ports of outgoing connections, of which other tests
// make many at the same time.
func freePort() (port int, err error) {
	for range 100 {
		port = 20000 + rand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}
