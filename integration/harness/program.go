package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TemporaryPaths has nginx keep what it buffers in dir: an ordinary user may not write to the package's.
func TemporaryPaths(dir string) (lines string) {
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		lines += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	return lines
}

// StartProgram writes a program's configuration and returns how to run it until the end of the test; it must then have ended
// by itself, at SIGTERM, and it is running once somebody listens on addr.
func StartProgram(t testing.TB, name, path, config string) (run func(addr string, args ...string)) {
	t.Helper()
	NoError(t, os.WriteFile(path, []byte(config), 0o600))
	binary, err := exec.LookPath(name)
	if err != nil {
		binary, err = exec.LookPath("/usr/sbin/" + name) // on no ordinary user's PATH
	}
	if err != nil {
		t.Fatalf("no %s: install it with .ci/setup test", name)
	}
	return func(addr string, args ...string) {
		t.Helper()
		log := NewLogBuffer()
		cmd := exec.Command(binary, args...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(path)) // Caddy keeps its data there
		done := StartProcess(t, cmd)
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			select {
			case <-done:
			case <-time.After(Patience):
				_ = cmd.Process.Kill()
				<-done
			}
			if t.Failed() {
				written, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "error.log")) // nginx's alone
				t.Logf("%s said:\n%s%s", name, log.String(), written)
			}
		})
		Eventually(t, func() error {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				select {
				case <-done:
					t.Fatalf("%s has ended:\n%s", name, log.String())
				default:
				}
				return fmt.Errorf("%s does not listen on %s: %w; it said:\n%s", name, addr, err, log.String())
			}
			return conn.Close()
		})
	}
}

// QuietAddr is a free address that stays free while nobody listens on it: below the range from which the system takes the
// ports of outgoing connections (32768 on Linux, 49152 on macOS), and not the private servers' of pgtest either.
func QuietAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(8000)))
		if err == nil {
			defer func() { _ = l.Close() }()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// FreePort looks below the range from which the system takes the ports of outgoing connections, of which other tests
// make many at the same time.
func FreePort() (port int, err error) {
	for range 100 {
		port = 20000 + rand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// StartProcess starts a program. The channel is closed when it has ended, however it did; then its status is in cmd.ProcessState.
func StartProcess(t testing.TB, cmd *exec.Cmd) (ended chan struct{}) {
	t.Helper()
	NoError(t, cmd.Start())
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return ended
}

func lookPath(t testing.TB, remedy string, candidates ...string) string {
	t.Helper()
	for _, c := range candidates {
		if path, err := exec.LookPath(c); err == nil {
			return path
		}
		if _, err := os.Stat(c); err == nil {
			return c
		}
	}
	t.Fatalf("%s is needed: %s", candidates[0], remedy)
	return ""
}
