package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	cmd    *exec.Cmd
	logged int64         // where its part of the log begins
	done   chan struct{} // closed when it has ended and was reaped
}

var errPortTaken = errors.New("port is taken")

// startOnPort starts on the given port, or for 0 on one after the other until nobody was quicker.
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

// freePort looks below the range from which the system takes the ports of outgoing connections (32768 on Linux, 49152
// on macOS): while the server is down for a Restart, a client that redials could be given the very port it dials.
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
	p := &process{cmd: cmd, logged: logged, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// See sysProcAttr: were this thread to end, the server would be told to.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // how it ended stands in its log
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
	for name, value := range s.settings {
		settings[name] = value
	}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// ready asks until the server answers, ends, or ctx does.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(poll)
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

// probe makes sure that it is this server that answers, and not the one that took the port.
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
	if err != nil || int64(len(text)) < s.proc.logged {
		return ""
	}
	return lastLines(string(text[s.proc.logged:]), 12)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
