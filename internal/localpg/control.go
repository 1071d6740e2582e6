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

// PID returns the postmaster's process id, or 0 when the server does not run.
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

// StopFast ends all sessions, shuts the server down properly, and waits for its end. Restart starts it again.
func (s *Server) StopFast(ctx context.Context) error {
	return s.stopWith(ctx, syscall.SIGINT)
}

// StopImmediate aborts the server, so that the next start recovers from the log as after a crash, and waits for its end.
func (s *Server) StopImmediate(ctx context.Context) error {
	return s.stopWith(ctx, syscall.SIGQUIT)
}

// Crash kills the postmaster with SIGKILL. Its children notice that and exit. Crash waits for them, because Restart cannot use the data
// directory before.
func (s *Server) Crash(ctx context.Context) error {
	family, err := s.serverProcesses()
	if err != nil {
		return fmt.Errorf("localpg: crash: %w", err)
	}
	if err := s.stopWith(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	return s.waitServerGone(ctx, family)
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

// Pause stops all processes of the server with SIGSTOP: connections stay open and the kernel still accepts new ones, but nothing answers. It
// returns when all processes are stopped.
func (s *Server) Pause() error {
	if !s.running() {
		return errors.New("localpg: Pause: the server does not run")
	}
	// The postmaster first, so that it makes no further children.
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("localpg: pause: %w", err)
	}
	still, err := waitGone(context.Background(), immediateTimeout, s.allPaused)
	if err != nil {
		return fmt.Errorf("localpg: pause: %w", err)
	}
	if !still {
		return errors.New("localpg: pause: the server's processes do not stop")
	}
	return nil
}

func (s *Server) allPaused() (bool, error) {
	family, err := s.serverProcesses()
	if err != nil {
		return false, err
	}
	still := true
	for _, p := range family {
		if p.state != 'T' {
			still = false
			_ = syscall.Kill(p.pid, syscall.SIGSTOP) // an error means that it has ended
		}
	}
	return still, nil
}

// Resume continues a paused server.
func (s *Server) Resume() error {
	family, err := s.serverProcesses()
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

// serverProcesses lists the postmaster and its children. All processes of a server are direct children of its postmaster.
func (s *Server) serverProcesses() ([]procInfo, error) {
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
		// Z is a child that a stopped postmaster has not reaped.
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

// stopWith sends one signal and waits for the postmaster's end. Unless it was killed, the postmaster waits for its children.
func (s *Server) stopWith(ctx context.Context, sig syscall.Signal) error {
	if !s.running() {
		return nil
	}
	if err := s.Resume(); err != nil { // a stopped process reacts only to SIGKILL
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

// stopProcess stops the server, with SIGKILL if nothing else works. ctx bounds only the fast shutdown.
func (s *Server) stopProcess(ctx context.Context) error {
	if !s.running() {
		return nil
	}
	family, err := s.serverProcesses()
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
		err = s.stopWith(stepCtx, step.sig)
		cancel()
		if err == nil {
			return s.waitServerGone(hard, family)
		}
	}
	return err
}

// waitServerGone waits until none of these processes is left, and stops those that stay too long.
func (s *Server) waitServerGone(ctx context.Context, family []procInfo) error {
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
