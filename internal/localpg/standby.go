package localpg

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// copyPrimary makes the data directory a copy of a running server's, set up to stream from it. The copy has the same superuser and password.
func (s *Server) copyPrimary(ctx context.Context, primary *Server) error {
	work, err := os.MkdirTemp(s.home, "initdb-")
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // after an error, the next start removes it
	if err := s.account.chown(work); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	s.password = primary.password
	if err := writeSecret(s.passwordFile(), s.password+"\n"); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	from, err := url.Parse(primary.DSN(""))
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	from.User = url.User("postgres") // the password is in the environment, because everybody can read arguments
	data := filepath.Join(work, "data")
	cmd := s.account.command(ctx, s.bin.path("pg_basebackup"),
		"--dbname", from.String(), "--pgdata", data, "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
	cmd.Env = append(cmd.Env, "PGPASSWORD="+s.password)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // on SIGINT it removes its files
	cmd.WaitDelay = 5 * time.Second
	if err := runOnThread(cmd); err != nil {
		return fmt.Errorf("localpg: pg_basebackup: %w", err)
	}
	if err := os.Rename(data, s.data()); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}

// runOnThread runs a program to its end on one thread, because the kernel sends the signal of sysProcAttr when the thread that started the
// program ends.
func runOnThread(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(string(out), 10))
	}
	return nil
}
