package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
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
		if s.primary != nil {
			return s.copyPrimary(ctx, s.primary)
		}
		return s.initdb(ctx)
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

func (s *Server) initdb(ctx context.Context) error {
	work, err := os.MkdirTemp(s.home, "initdb-")
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // after an error, the next start removes it

	s.password = rand.Text()
	pwfile := filepath.Join(work, "password")
	// One file for us, and one that initdb can read as the account.
	for _, path := range []string{s.passwordFile(), pwfile} {
		if err := writeSecret(path, s.password+"\n"); err != nil {
			return fmt.Errorf("localpg: %w", err)
		}
	}
	for _, path := range []string{pwfile, work} {
		if err := s.account.chown(path); err != nil {
			return fmt.Errorf("localpg: %w", err)
		}
	}
	data := filepath.Join(work, "data")
	args := []string{
		"-D", data, "-U", "postgres", "--pwfile", pwfile, "-A", "scram-sha-256",
		// The same sort order and encoding on every machine.
		"-E", "UTF8", "--no-locale",
	}
	if s.ephemeral {
		args = append(args, "--no-sync")
	}
	cmd := s.account.command(ctx, s.bin.path("initdb"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // on SIGINT it removes its files
	cmd.WaitDelay = 5 * time.Second
	if err := runOnThread(cmd); err != nil {
		return fmt.Errorf("localpg: initdb: %w", err)
	}
	if err := os.Rename(data, s.data()); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
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
