package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// PID is the postmaster's process id; 0 when the server does not run.
func (s *Server) PID() int {
	if !s.running() {
		return 0
	}
	return s.proc.cmd.Process.Pid
}

func (s *Server) running() bool {
	if s.proc == nil {
		return false
	}
	select {
	case <-s.proc.done:
		return false
	default:
		return true
	}
}

// StopFast ends all sessions and shuts the server down in order; Restart brings it back. It waits.
func (s *Server) StopFast(ctx context.Context) error {
	return s.end(ctx, syscall.SIGINT)
}

// StopImmediate aborts the server, so that the next start recovers from the log as after a crash. It waits.
func (s *Server) StopImmediate(ctx context.Context) error {
	return s.end(ctx, syscall.SIGQUIT)
}

// Crash kills the postmaster with SIGKILL. Its children notice that and end themselves; Crash waits for that too,
// since they would keep a Restart from using the data directory.
func (s *Server) Crash(ctx context.Context) error {
	family, err := s.family()
	if err != nil {
		return fmt.Errorf("localpg: crash: %w", err)
	}
	if err := s.end(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	return s.familyGone(ctx, family)
}

// Restart starts the server again on the same port and data, after a fast shutdown if it still runs.
func (s *Server) Restart(ctx context.Context) error {
	if s.closed {
		return errors.New("localpg: Restart after Stop")
	}
	if err := s.stopProcess(ctx); err != nil {
		return err
	}
	return s.startProcess(ctx)
}

// Pause stops all processes of the server with SIGSTOP: connections stay open and are still accepted by the kernel,
// but nothing answers any more. It returns when all of them stand still.
func (s *Server) Pause() error {
	if !s.running() {
		return errors.New("localpg: Pause: the server does not run")
	}
	// The postmaster first, so that it makes no further children.
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("localpg: pause: %w", err)
	}
	still, err := waitGone(context.Background(), immediateTimeout, s.standsStill)
	if err != nil {
		return fmt.Errorf("localpg: pause: %w", err)
	}
	if !still {
		return errors.New("localpg: pause: the server's processes do not stop")
	}
	return nil
}

func (s *Server) standsStill() (bool, error) {
	family, err := s.family()
	if err != nil {
		return false, err
	}
	still := true
	for _, p := range family {
		if p.state != 'T' {
			still = false
			_ = syscall.Kill(p.pid, syscall.SIGSTOP) // it may have ended meanwhile
		}
	}
	return still, nil
}

// Resume lets a paused server go on.
func (s *Server) Resume() error {
	family, err := s.family()
	if err != nil {
		return fmt.Errorf("localpg: resume: %w", err)
	}
	for _, p := range family {
		if err := syscall.Kill(p.pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("localpg: resume: %w", err)
		}
	}
	return nil
}

// family lists the postmaster and its children: all processes of a server are direct children of its postmaster.
func (s *Server) family() ([]procInfo, error) {
	pid := s.PID()
	if pid == 0 {
		return nil, nil
	}
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var family []procInfo
	for _, p := range all {
		// Z: a child that a stopped postmaster has not reaped
		if (p.pid == pid || p.ppid == pid) && p.state != 'Z' {
			family = append(family, p)
		}
	}
	return family, nil
}

func (s *Server) signal(sig syscall.Signal) error {
	if err := s.proc.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end sends one signal and waits for the postmaster, which waits for its children unless it was killed.
func (s *Server) end(ctx context.Context, sig syscall.Signal) error {
	if !s.running() {
		return nil
	}
	if err := s.Resume(); err != nil { // a stopped process takes no signal but SIGKILL
		return err
	}
	if err := s.signal(sig); err != nil {
		return fmt.Errorf("localpg: stop: %w", err)
	}
	select {
	case <-s.proc.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("localpg: stop PostgreSQL: %w", ctx.Err())
	}
}

// stopProcess ends the server whatever it takes; ctx only decides how long the gentle way may take.
func (s *Server) stopProcess(ctx context.Context) error {
	if !s.running() {
		return nil
	}
	family, err := s.family()
	if err != nil {
		return fmt.Errorf("localpg: stop: %w", err)
	}
	hard := context.WithoutCancel(ctx)
	for _, step := range []struct {
		ctx   context.Context
		sig   syscall.Signal
		limit time.Duration
	}{
		{ctx, syscall.SIGINT, fastTimeout},
		{hard, syscall.SIGQUIT, immediateTimeout},
		{hard, syscall.SIGKILL, immediateTimeout},
	} {
		stepCtx, cancel := context.WithTimeout(step.ctx, step.limit)
		err = s.end(stepCtx, step.sig)
		cancel()
		if err == nil {
			return s.familyGone(hard, family)
		}
	}
	return err
}

// familyGone waits until none of these processes is left, and helps after a while.
func (s *Server) familyGone(ctx context.Context, family []procInfo) error {
	gone, err := waitGone(ctx, immediateTimeout, func() (bool, error) { return allGone(family) })
	if err != nil {
		return fmt.Errorf("localpg: stop: %w", err)
	}
	if gone {
		return nil
	}
	return endOrphans(ctx, s.data())
}

func allGone(family []procInfo) (bool, error) {
	all, err := processes()
	if err != nil {
		return false, err
	}
	for _, p := range all {
		if p.state != 'Z' && slices.ContainsFunc(family, func(f procInfo) bool { return f.pid == p.pid }) {
			return false, nil
		}
	}
	return true, nil
}
