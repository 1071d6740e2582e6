package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// binary is the program as users build it, or BENCH_BINARY.
var binary = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("BENCH_BINARY"); given != "" {
		return given, nil
	}
	return build("auditstream-bench", harness.Path("."))
})

// binaryBefore is the program of the commit BENCH_BEFORE.
var binaryBefore = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bench-before-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	clone := exec.Command("sh", "-c", `git clone -q -s "$1" "$2" && git -C "$2" checkout -q "$3"`, "sh", harness.Path("."), dir, os.Getenv("BENCH_BEFORE"))
	clone.Stderr = os.Stderr
	if err := clone.Run(); err != nil {
		return "", fmt.Errorf("check out BENCH_BEFORE: %w", err)
	}
	return build("auditstream-bench-before", dir)
})

func build(name, dir string) (string, error) {
	return harness.BuildProgram(name, dir, "./cmd/auditstream", "-ldflags", "-s -w")
}

// auditstream is our binary serving. Its configuration is the default one but for limits that would stop the load.
type auditstream struct {
	*harness.Instance
	addr   string
	tokens []string
	uuids  bool
}

func startAuditstream(t testing.TB, binary string, a *application, env ...string) *auditstream {
	t.Helper()
	s := &auditstream{Instance: harness.Launch(t, binary, a.dsn, append([]string{"SSE_MAX_STREAMS=0"}, env...)...), uuids: a.uuids}
	s.Log.KeepLast(1 << 20)
	s.addr = strings.TrimPrefix(s.URL, "http://")
	for k := range users {
		s.tokens = append(s.tokens, harness.Token(t, jwt.MapClaims{"sub": user(k), "exp": time.Now().Add(3 * time.Hour).Unix()}))
	}
	return s
}

func (s *auditstream) port() int {
	_, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port) // it was printed by net
	return n
}

func (s *auditstream) pid() int { return s.Cmd.Process.Pid }

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

func (s *auditstream) stop(t testing.TB) { s.Stop(t) }

type silent struct{}

func (silent) publish(int, []byte) error { return nil }
func (silent) close()                    {}
