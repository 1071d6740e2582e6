package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockDir makes dir and locks its lock file. Its error says who holds the lock.
func (s *Server) lockDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if s.dir, err = filepath.EvalSymlinks(abs); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	s.lock, err = acquireLock(s.dir)
	return err
}

// acquireLock locks a directory's lock file. The lock ends when the file is closed or the process dies.
func acquireLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("localpg: %s belongs to another account: remove it or run as that account: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("localpg: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(f.Name()) // only for the message
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("localpg: %s is in use by another run (process %s): stop that one first, or use another directory",
				dir, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("localpg: lock %s: %w", dir, err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("localpg: %w", err)
	}
	return f, nil
}

// sweepAge is how old a lock file must be for Sweep. A younger one may belong to a run that has made it and not locked it yet.
const sweepAge = time.Minute

// Sweep removes the directories of Ephemeral servers that match pattern and whose run was killed, and stops the servers that still run there. It
// leaves locked directories alone.
func Sweep(ctx context.Context, pattern string) error {
	locks, err := filepath.Glob(filepath.Join(pattern, "lock"))
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	var errs []error
	for _, path := range locks {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < sweepAge || ownerUID(info) != os.Geteuid() {
			continue
		}
		errs = append(errs, sweepDir(ctx, filepath.Dir(path)))
	}
	return errors.Join(errs...)
}

func sweepDir(ctx context.Context, dir string) error {
	lock, err := acquireLock(dir)
	if err != nil {
		return nil // in use
	}
	defer func() { _ = lock.Close() }()
	if err := stopOrphans(ctx, slog.New(slog.DiscardHandler), filepath.Join(dir, "data")); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}
