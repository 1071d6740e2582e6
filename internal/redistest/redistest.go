// Package redistest starts Debian's redis-server for tests that break it: each has its own, which keeps its port when it is
// started again and writes nothing to disk.
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

// Server is a redis-server of a test's own.
type Server struct {
	Addr string
	args []string
	cmd  *exec.Cmd
	read chan struct{} // closed when its output has ended
}

// Start returns a server that is killed when the test is over. Of the arguments {port} stands for the port; with --tls-port
// among them there is no other.
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

// URL is the server's without TLS and password.
func (s *Server) URL() string { return "redis://" + s.Addr + "/0" }

// Restart starts the server after Kill.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
}

// Resume is Restart for who has no test at hand.
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

// Process is for SIGSTOP and SIGCONT.
func (s *Server) Process() *os.Process { return s.cmd.Process }

// Kill ends the server, if it runs, without a goodbye.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.ProcessState != nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.read
	_ = s.cmd.Wait() // it was killed
}
