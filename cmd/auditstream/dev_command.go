package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"auditstream/internal/localpg"
)

// devCommandStop is the time that a command has to end after SIGTERM. If it is longer, Ctrl-C takes longer with a command that hangs.
const devCommandStop = 10 * time.Second

// runCommand runs a command with the private database until the command ends or ctx is done. Its exit status is an exitError.
func (c *devCmd) runCommand(ctx context.Context, std streams, pg *localpg.Server) error {
	if err := makeDevDatabase(ctx, pg); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+pg.DSN(devDatabase))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, std.out, std.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = devCommandStop
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.Exited() {
		return exitError{ended.ExitCode(), fmt.Errorf("%s has ended with exit status %d", c.Command[0], ended.ExitCode())}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", c.Command[0], err)
	}
	return nil
}

// ownOutput returns where dev's own lines go: with a command, standard output is the command's only.
func (c *devCmd) ownOutput(std streams) io.Writer {
	if len(c.Command) > 0 {
		return std.err
	}
	return std.out
}
