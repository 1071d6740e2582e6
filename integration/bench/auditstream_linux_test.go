package bench

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const startPatience = time.Minute

var secret = rand.Text() + rand.Text()

// binary is the program as users build it, or BENCH_BINARY.
var binary = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("BENCH_BINARY"); given != "" {
		return given, nil
	}
	path, err := filepath.Abs("../../bin/auditstream-bench")
	if err != nil {
		return "", err
	}
	return path, build("../..", path)
})

// binaryBefore is the program of the commit BENCH_BEFORE.
var binaryBefore = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bench-before-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := filepath.Abs("../../bin/auditstream-bench-before")
	if err != nil {
		return "", err
	}
	clone := exec.Command("sh", "-c", `git clone -q -s "$1" "$2" && git -C "$2" checkout -q "$3"`, "sh", "../..", dir, os.Getenv("BENCH_BEFORE"))
	clone.Stderr = os.Stderr
	if err := clone.Run(); err != nil {
		return "", fmt.Errorf("check out BENCH_BEFORE: %w", err)
	}
	return path, build(dir, path)
})

func build(dir, path string) error {
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "./cmd/auditstream")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the binary: %w", err)
	}
	return nil
}

// bare is our environment without what would configure the binary, or make it collect garbage in another rhythm.
func bare(env ...string) []string {
	clean := make([]string, 0, len(os.Environ())+len(env))
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch prefix, _, _ := strings.Cut(name, "_"); prefix {
		case "SSE", "JWT", "DATABASE", "HTTP", "ADMIN", "TLS", "CORS", "LOG", "REDIS", "GOGC", "GOMEMLIMIT", "GODEBUG", "GOMAXPROCS":
		default:
			if !strings.HasPrefix(name, "PG") {
				clean = append(clean, entry)
			}
		}
	}
	return append(clean, env...)
}

// auditstream is our binary serving. Its configuration is the default one but for limits that would stop the load.
type auditstream struct {
	cmd     *exec.Cmd
	addr    string
	drained chan struct{}
	tokens  []string
	uuids   bool
}

func startAuditstream(t testing.TB, binary string, a *application, env ...string) *auditstream {
	t.Helper()
	s := &auditstream{drained: make(chan struct{}), uuids: a.uuids}
	s.cmd = exec.Command(binary, "serve")
	s.cmd.Env = bare(append([]string{
		"DATABASE_URL=" + a.dsn, "JWT_SECRET=" + secret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json",
		"SSE_MAX_STREAMS=0", "SSE_MAX_STREAMS_PER_USER=0",
	}, env...)...)
	log, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
	messages := make(chan map[string]any, 100)
	go func() {
		defer close(s.drained)
		defer close(messages)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var record map[string]any
			if json.Unmarshal(lines.Bytes(), &record) != nil {
				continue
			}
			select {
			case messages <- record:
			default: // nobody waits for one any more
			}
		}
	}()
	s.addr = waitServing(t, messages)
	awaitPort(t, s.addr)
	for k := range users {
		claims := jwt.MapClaims{"sub": user(k), "exp": time.Now().Add(3 * time.Hour).Unix()}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		s.tokens = append(s.tokens, token)
	}
	return s
}

func waitServing(t testing.TB, messages <-chan map[string]any) string {
	t.Helper()
	for deadline := time.After(startPatience); ; {
		select {
		case record, ok := <-messages:
			if !ok {
				t.Fatal("auditstream serve has ended before it served")
			}
			if addr, ok := record["addr"].(string); ok && record["msg"] == "serving" {
				return addr
			}
		case <-deadline:
			t.Fatal("auditstream serve does not serve")
		}
	}
}

// awaitPort waits until something accepts connections there.
func awaitPort(t testing.TB, addr string) {
	t.Helper()
	for deadline := time.Now().Add(startPatience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (s *auditstream) port() int {
	_, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port) // it was printed by net
	return n
}

func (s *auditstream) pid() int { return s.cmd.Process.Pid }

func (s *auditstream) request(audit int) []byte {
	path := "audits/" + strconv.Itoa(audit+1)
	if s.uuids {
		path = "jobs/" + uuid(audit)
	}
	return fmt.Appendf(nil, "GET /api/v1/sse/%s/progress HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n",
		path, s.addr, s.tokens[audit%users])
}

// publisher does nothing: PostgreSQL tells.
func (s *auditstream) publisher(testing.TB) publisher { return silent{} }

func (s *auditstream) stop(t testing.TB) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop auditstream: %v", err)
	}
	<-s.drained
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("auditstream serve: %v", err)
	}
}

type silent struct{}

func (silent) publish(int, []byte) error { return nil }
func (silent) close()                    {}
