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

// procInfo is what the system tells about a process.
type procInfo struct {
	pid, ppid int
	name      string // of the program, or its whole command line where worksOn needs that
	state     byte   // T: stopped by a signal
}

const poll = 10 * time.Millisecond

// stopOrphans ends the server that a killed run left on data, and what is left of one that was killed itself. The
// caller holds the lock of the directory, so none of it belongs to a living run.
func stopOrphans(ctx context.Context, log *slog.Logger, data string) error {
	found, err := serverProcesses(data)
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
		all    bool // else the postmaster only, which tells the others
		wait   time.Duration
	}{
		{syscall.SIGINT, false, fastTimeout},
		{syscall.SIGQUIT, true, immediateTimeout},
		{syscall.SIGKILL, true, immediateTimeout},
	} {
		found, err := serverProcesses(data)
		if err != nil {
			return fmt.Errorf("localpg: %w", err)
		}
		postmaster := postmasterPID(data)
		alone := !slices.ContainsFunc(found, func(p procInfo) bool { return p.pid == postmaster })
		for _, p := range found {
			_ = syscall.Kill(p.pid, syscall.SIGCONT) // a test may have paused it
			// Without a postmaster nobody tells the others.
			if step.all || alone || p.pid == postmaster {
				_ = syscall.Kill(p.pid, step.signal) // it may have ended meanwhile
			}
		}
		gone, err := waitGone(ctx, step.wait, func() (bool, error) {
			left, err := serverProcesses(data)
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

// waitGone asks until gone says yes, for at most limit. These processes are not our children: nothing wakes us.
func waitGone(ctx context.Context, limit time.Duration, gone func() (bool, error)) (bool, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
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

func serverProcesses(data string) ([]procInfo, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var found []procInfo
	for _, p := range all {
		if worksOn(p, data) {
			found = append(found, p)
		}
	}
	return found, nil
}

// postmasterPID is what the lock file of the data directory says, 0 if it says nothing.
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

// removeRecycledPID removes a postmaster.pid whose number now belongs to another program, which PostgreSQL would take
// for a running server. All other stale ones are left to PostgreSQL: it also checks the shared memory named there.
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
