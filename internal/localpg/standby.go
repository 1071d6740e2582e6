package localpg

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"
)

// copyPrimary returns the command that makes data a copy of the primary's, set up to stream from it, with the same superuser and password.
func (s *Server) copyPrimary(ctx context.Context, data string) (*exec.Cmd, error) {
	s.password = s.primary.password
	from, err := url.Parse(s.primary.DSN(""))
	if err != nil {
		return nil, err
	}
	from.User = url.User("postgres") // the password is in the environment, because everybody can read arguments
	cmd := s.account.command(ctx, s.bin.path("pg_basebackup"),
		"--dbname", from.String(), "--pgdata", data, "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
	cmd.Env = append(cmd.Env, "PGPASSWORD="+s.password)
	return cmd, nil
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
