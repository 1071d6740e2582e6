package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"auditstream/integration/harness"
)

// A channel for each audit, with a buffer of its newest message, which is what a new subscriber is sent first. The backlog
// is as long as the kernel lets Go's be.
const nchanConfig = `load_module %s;
%sdaemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr error;
events { worker_connections 19000; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	nchan_shared_memory_size 256M;
	nchan_message_buffer_length 1;
	nchan_message_timeout 0;
	server {
		listen 127.0.0.1:%d backlog=%s;
		keepalive_requests 1000000000;
		location ~ ^/publish/(\d+)$ { nchan_publisher; nchan_channel_id $1; }
		location ~ ^/subscribe/(\d+)$ { nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message oldest; }
	}
}
`

const nchanRemedy = "the peer is nginx with Nchan: install it with .ci/setup bench (Debian: nginx-light libnginx-mod-nchan), or set BENCH_PEER=none"

// nginx is the peer's server.
type nginx struct {
	cmd      *exec.Cmd
	ended    chan struct{}
	listened int
}

func nginxPath() (string, error) {
	for _, candidate := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no nginx: %s", nchanRemedy)
}

func nchanModule() (string, error) {
	for _, pattern := range []string{"/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib*/nginx/modules/ngx_nchan_module.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the pattern is well formed
			return found[0], nil
		}
	}
	return "", fmt.Errorf("no ngx_nchan_module.so: %s", nchanRemedy)
}

func startNchan(t testing.TB) *nginx {
	t.Helper()
	path, err := nginxPath()
	harness.NoError(t, err)
	module, err := nchanModule()
	harness.NoError(t, err)
	backlog, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	harness.NoError(t, err)
	account := ""
	if os.Geteuid() == 0 {
		account = "user root;\n" // so that the workers can enter the test's directory
	}
	port, err := harness.FreePort()
	harness.NoError(t, err)
	s := &nginx{listened: port}
	dir := t.TempDir()
	config := fmt.Sprintf(nchanConfig, module, account, s.listened, string(backlog[:len(backlog)-1]))
	harness.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600))
	s.cmd = exec.Command(path, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	s.cmd.Stderr = os.Stderr
	s.ended = harness.StartProcess(t, s.cmd)
	t.Cleanup(func() { s.stop(t) })
	harness.Eventually(t, func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.listened))
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return s
}

func (s *nginx) port() int { return s.listened }
func (s *nginx) pid() int  { return s.cmd.Process.Pid }

func (s *nginx) request(audit int) []byte {
	return fmt.Appendf(nil, "GET /subscribe/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n", audit+1)
}

func (s *nginx) publisher(t testing.TB) publisher {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.listened))
	harness.NoError(t, err)
	return &nchanPublisher{conn: conn, answers: bufio.NewReader(conn)}
}

func (s *nginx) stop(t testing.TB) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	<-s.ended
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return // before it had begun to handle signals
	}
	harness.Equal(t, s.cmd.ProcessState.ExitCode(), 0, "nginx: exit status")
}

// nchanPublisher keeps its connection and writes requests by hand, which costs less than net/http's client: what it costs
// would be counted as the peer's latency.
type nchanPublisher struct {
	conn    net.Conn
	answers *bufio.Reader
}

func (p *nchanPublisher) publish(audit int, json []byte) error {
	request := fmt.Appendf(nil, "POST /publish/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", audit+1, len(json), json)
	if _, err := p.conn.Write(request); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	answer, err := http.ReadResponse(p.answers, nil)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("publish: %s", answer.Status)
	}
	return nil
}

func (p *nchanPublisher) close() { _ = p.conn.Close() }
