// Package redistest starts Debian's redis-server for tests.
//
// The rule that keeps it right: each test has a server of its own, and may break it. The server keeps its port over a restart and writes
// nothing to disk. Only tests import this package.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const startTimeout = time.Minute

// Server is the redis-server of one test. Its methods are not safe for concurrent use.
type Server struct {
	Addr string
	args []string
	cmd  *exec.Cmd
	read chan struct{} // closed at the end of the server's output
}

// Start returns a server that is killed when the test is over. In args, {port} stands for its port. With --tls-port in args it has no plain
// port.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String()}
	l.Close()
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	plain := port
	for _, arg := range args {
		if arg == "--tls-port" {
			plain = "0"
		}
		s.args = append(s.args, strings.ReplaceAll(arg, "{port}", port))
	}
	s.args = append([]string{"--bind", "127.0.0.1", "--port", plain, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, s.args...)
	s.Restart(t)
	t.Cleanup(s.Kill)
	return s
}

// URL returns the server's URL, without TLS and password.
func (s *Server) URL() string { return "redis://" + s.Addr + "/0" }

// Restart starts the server after Kill.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
}

// Resume is Restart for callers without a testing.TB.
func (s *Server) Resume() error {
	s.cmd, s.read = exec.Command("redis-server", s.args...), make(chan struct{})
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%w: .ci/setup test installs it", err)
	}
	ready, read := make(chan struct{}), s.read
	go func() {
		defer close(read)
		var once sync.Once
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "Ready to accept connections") {
				once.Do(func() { close(ready) })
			}
		}
	}()
	select {
	case <-ready:
		return nil
	case <-read:
		return fmt.Errorf("redis-server %q has ended", s.args)
	case <-time.After(startTimeout):
		return errors.New("redis-server does not start")
	}
}

// Process returns the server's process, for SIGSTOP and SIGCONT.
func (s *Server) Process() *os.Process { return s.cmd.Process }

// Kill kills the server with SIGKILL, if it runs.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.ProcessState != nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error means that it has ended
	<-s.read
	_ = s.cmd.Wait() // always an error, because it was killed
}
