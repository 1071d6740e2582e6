package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// process is one run of the postmaster.
type process struct {
	cmd      *exec.Cmd
	logStart int64         // the offset in the log file where its part begins
	done     chan struct{} // closed when it has ended and was reaped
}

var errPortTaken = errors.New("port is taken")

// startOnPort starts the server on port or, for 0, on a free port. If another process takes that port first, it tries another one.
func (s *Server) startOnPort(ctx context.Context, port int) error {
	var err error
	for range 5 {
		s.port = port
		if port == 0 {
			if s.port, err = freePort(); err != nil {
				return err
			}
		}
		if err = s.startProcess(ctx); err == nil || !errors.Is(err, errPortTaken) || port != 0 {
			return err
		}
	}
	return err
}

// freePort returns a port below the range of outgoing connections (from 32768 on Linux, from 49152 on macOS). Otherwise, while the server is
// down for a Restart, a client that redials could get as its own port the one that it dials.
func freePort() (int, error) {
	var err error
	for range 100 {
		var l net.Listener
		port := 20000 + rand.IntN(12000)
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("localpg: no free port: %w", err)
}

// startProcess runs the postmaster and waits until it answers.
func (s *Server) startProcess(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.launch(); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return errors.Join(err, s.stopProcess(context.WithoutCancel(ctx)))
	}
	s.log.Debug("PostgreSQL is ready", "version", s.bin.version, "port", s.port, "pid", s.PID())
	return nil
}

func (s *Server) launch() error {
	logFile, err := os.OpenFile(s.LogFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	defer func() { _ = logFile.Close() }() // the server has its own
	logged, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	// Not CommandContext: the server outlives the context of Start.
	cmd := s.account.command(context.Background(), s.bin.path("postgres"), s.arguments()...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	p := &process{cmd: cmd, logStart: logged, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// See sysProcAttr: when this thread ends, the kernel stops the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // its log says how it ended
		close(p.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	s.proc = p
	return nil
}

func (s *Server) arguments() []string {
	args := []string{"-D", s.data()} // first: sys_other.go looks for it
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "", // paths of sockets are limited to 107 bytes
		"logging_collector":       "off",
		"log_destination":         "stderr",
		"log_checkpoints":         "off",
		"log_timezone":            "UTC",
	}
	maps.Copy(settings, s.settings)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// ready polls until the server answers, the server ends, or ctx is done.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := s.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.proc.done:
			return s.startError(errors.New("the server ended while starting"))
		case <-ctx.Done():
			return s.startError(fmt.Errorf("the server does not answer: %w", err))
		case <-tick.C:
		}
	}
}

// probe checks that this server answers, and not another one that has taken the port.
func (s *Server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var data string
	if err := conn.QueryRow(ctx, "select current_setting('data_directory')").Scan(&data); err != nil {
		return err
	}
	if data != s.data() {
		return fmt.Errorf("port %d belongs to the server on %s", s.port, data)
	}
	return nil
}

func (s *Server) startError(err error) error {
	text := s.logTail()
	if strings.Contains(text, "Address already in use") {
		err = fmt.Errorf("127.0.0.1:%d: %w", s.port, errPortTaken)
	}
	return fmt.Errorf("localpg: start PostgreSQL %s: %w; last lines of %s:\n%s", s.bin.version, err, s.LogFile(), text)
}

// logTail returns the last lines that this run of the server logged.
func (s *Server) logTail() string {
	text, err := os.ReadFile(s.LogFile())
	if err != nil || int64(len(text)) < s.proc.logStart {
		return ""
	}
	return lastLines(string(text[s.proc.logStart:]), 12)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
