package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// procInfo is what the system says about a process.
type procInfo struct {
	pid, ppid int
	name      string // the program's name, or its whole command line where isServerOn needs that
	state     byte   // T: stopped by a signal
}

const pollInterval = 10 * time.Millisecond

// stopOrphans stops the server that a killed run left on data, and the remaining processes of a killed server. The caller holds the
// directory's lock, so they do not belong to a living run.
func stopOrphans(ctx context.Context, log *slog.Logger, data string) error {
	found, err := processesOn(data)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if len(found) > 0 {
		log.Warn("stopping the server of an earlier run", "data", data, "processes", len(found))
		if err := endOrphans(ctx, data); err != nil {
			return err
		}
	}
	return removeRecycledPID(data)
}

func endOrphans(ctx context.Context, data string) error {
	for _, step := range []struct {
		signal syscall.Signal
		all    bool // to all processes; otherwise only to the postmaster, which stops the others
		wait   time.Duration
	}{
		{syscall.SIGINT, false, fastTimeout},
		{syscall.SIGQUIT, true, immediateTimeout},
		{syscall.SIGKILL, true, immediateTimeout},
	} {
		found, err := processesOn(data)
		if err != nil {
			return fmt.Errorf("localpg: %w", err)
		}
		postmaster := postmasterPID(data)
		alone := !slices.ContainsFunc(found, func(p procInfo) bool { return p.pid == postmaster })
		for _, p := range found {
			_ = syscall.Kill(p.pid, syscall.SIGCONT) // a test may have paused it
			// Without a postmaster nobody else stops the others.
			if step.all || alone || p.pid == postmaster {
				_ = syscall.Kill(p.pid, step.signal) // it may have ended meanwhile
			}
		}
		gone, err := waitGone(ctx, step.wait, func() (bool, error) {
			left, err := processesOn(data)
			return len(left) == 0, err
		})
		if err != nil {
			return fmt.Errorf("localpg: stop the server of an earlier run: %w", err)
		}
		if gone {
			return nil
		}
	}
	return fmt.Errorf("localpg: the server of an earlier run on %s does not end", data)
}

// waitGone polls until gone returns true, for limit at most. It must poll, because these processes are not our children.
func waitGone(ctx context.Context, limit time.Duration, gone func() (bool, error)) (bool, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := gone()
		if ok || err != nil {
			return ok, err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func processesOn(data string) ([]procInfo, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var found []procInfo
	for _, p := range all {
		if isServerOn(p, data) {
			found = append(found, p)
		}
	}
	return found, nil
}

// postmasterPID returns the process id in postmaster.pid of the data directory, or 0 without one.
func postmasterPID(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// removeRecycledPID removes a postmaster.pid whose process id now belongs to another program, because PostgreSQL would think that a server
// runs. It leaves other stale files to PostgreSQL, which also checks the shared memory that they name.
func removeRecycledPID(data string) error {
	pid := postmasterPID(data)
	if pid <= 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}
