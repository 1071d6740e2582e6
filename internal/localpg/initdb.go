package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prepareData makes the data directory, or checks that it fits these binaries and this account.
func (s *Server) prepareData(ctx context.Context) error {
	// initdb works in a directory of another name, so a directory called data is complete, and these are left from a killed run.
	leftovers, err := filepath.Glob(filepath.Join(s.home, "initdb-*"))
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	for _, dir := range leftovers {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("localpg: %w", err)
		}
	}
	info, err := os.Stat(s.data())
	if errors.Is(err, os.ErrNotExist) {
		return s.makeData(ctx)
	}
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if uid := ownerUID(info); uid != s.account.uid {
		return fmt.Errorf("localpg: %s belongs to uid %d, but the server would run as %s: remove %s or run as the same user as before",
			s.data(), uid, s.account.name, s.home)
	}
	return s.checkData()
}

func (s *Server) checkData() error {
	text, err := os.ReadFile(filepath.Join(s.data(), "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		// Not removed: it may be somebody's directory that happens to have this name.
		return fmt.Errorf("localpg: %s is not a PostgreSQL data directory: remove it or use another directory", s.data())
	}
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if made := strings.TrimSpace(string(text)); made != strconv.Itoa(s.bin.major) {
		return fmt.Errorf("localpg: %s was made by PostgreSQL %s, but %s is version %s: remove %s to start afresh, or put PostgreSQL %s first in PATH",
			s.data(), made, s.bin.dir, s.bin.version, s.home, made)
	}
	password, err := os.ReadFile(s.passwordFile())
	if err != nil {
		return fmt.Errorf("localpg: the password of %s is lost: remove %s to start afresh: %w", s.data(), s.home, err)
	}
	s.password = strings.TrimSpace(string(password))
	return nil
}

func (s *Server) passwordFile() string { return filepath.Join(s.home, "password") }

// makeData makes the data directory with initdb or, for a standby, with pg_basebackup.
func (s *Server) makeData(ctx context.Context) error {
	work, err := os.MkdirTemp(s.home, "initdb-")
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // after an error, the next start removes it
	data := filepath.Join(work, "data")
	var cmd *exec.Cmd
	if s.primary == nil {
		cmd, err = s.initdb(ctx, work, data)
	} else {
		cmd, err = s.copyPrimary(ctx, data)
	}
	if err == nil {
		err = writeSecret(s.passwordFile(), s.password+"\n")
	}
	if err == nil {
		err = s.account.chown(work)
	}
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // on SIGINT both programs remove their files
	cmd.WaitDelay = 5 * time.Second
	if err := runOnThread(cmd); err != nil {
		return fmt.Errorf("localpg: %s: %w", filepath.Base(cmd.Path), err)
	}
	if err := os.Rename(data, s.data()); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}

// initdb chooses a password and returns the command that makes a data directory with it.
func (s *Server) initdb(ctx context.Context, work, data string) (*exec.Cmd, error) {
	s.password = rand.Text()
	pwfile := filepath.Join(work, "password") // a second one, which initdb can read as the account
	if err := writeSecret(pwfile, s.password+"\n"); err != nil {
		return nil, err
	}
	args := []string{
		"-D", data, "-U", "postgres", "--pwfile", pwfile, "-A", "scram-sha-256",
		// The same sort order and encoding on every machine.
		"-E", "UTF8", "--no-locale",
	}
	if s.ephemeral {
		args = append(args, "--no-sync")
	}
	return s.account.command(ctx, s.bin.path("initdb"), args...), s.account.chown(pwfile)
}

// writeSecret replaces the file, so that the mode and the links of an older one do not remain.
func writeSecret(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
