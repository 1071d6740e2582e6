package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// balancer is a proxy before three instances, which runs with the configuration that deploy/ ships.
type balancer struct {
	name  string
	URL   string
	roots *x509.CertPool // of its certificate
}

// ports are what the shipped configurations name, in their order.
var ports = []string{"127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"}

// shipped reads a configuration of deploy/ and replaces pairs of texts, each of which must be there.
func shipped(t testing.TB, name string, pairs ...string) string {
	t.Helper()
	text, err := os.ReadFile(repoPath("deploy/" + name))
	if err != nil {
		t.Fatal(err)
	}
	for k := 0; k < len(pairs); k += 2 {
		if !bytes.Contains(text, []byte(pairs[k])) {
			t.Fatalf("deploy/%s has no %q, which the test replaces", name, pairs[k])
		}
	}
	return strings.NewReplacer(pairs...).Replace(string(text))
}

// instead pairs the addresses of the shipped configurations with those of instances.
func instead(addrs []string) (pairs []string) {
	for k, addr := range addrs {
		pairs = append(pairs, ports[k], addr)
	}
	return pairs
}

func startNginx(t testing.TB, addrs []string) *balancer {
	t.Helper()
	dir, cert, key, roots := certified(t)
	addr := quietAddr(t)
	config := shipped(t, "nginx.conf", append(instead(addrs),
		"user www-data;\n", "",
		"/run/nginx.pid", dir+"/pid", "/var/log/nginx/error.log", dir+"/error.log", "/var/log/nginx/access.log", dir+"/access.log",
		"http {\n", "http {\n"+temporaryPaths(dir),
		"listen 443 ", "listen "+addr+" ",
		"/etc/ssl/certs/auditstream.pem", cert, "/etc/ssl/private/auditstream.key", key)...)
	path := filepath.Join(dir, "nginx.conf")
	run := program(t, "nginx", path, config)
	run(addr, "-e", dir+"/error.log", "-p", dir, "-c", path, "-g", "daemon off;")
	return &balancer{name: "nginx", URL: "https://" + addr, roots: roots}
}

// temporaryPaths has nginx keep what it buffers in dir: an ordinary user may not write to the package's.
func temporaryPaths(dir string) (lines string) {
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		lines += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	return lines
}

// certified makes a folder with a certificate for 127.0.0.1 in it.
func certified(t testing.TB) (dir, cert, key string, roots *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	cert, key, roots, err := makeCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, cert, key, roots
}

func startHAProxy(t testing.TB, addrs []string) *balancer {
	t.Helper()
	dir, cert, key, roots := certified(t)
	var both []byte // HAProxy wants them in one file
	for _, file := range []string{cert, key} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, text...)
	}
	if err := os.WriteFile(filepath.Join(dir, "both.pem"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := quietAddr(t)
	config := shipped(t, "haproxy.cfg", append(instead(addrs),
		"user haproxy\n", "\n", "group haproxy\n", "\n", "log /dev/log local0", "log stderr format raw local0",
		"maxconn 20000", "maxconn 1000", // an ordinary user may not raise the limit of descriptors
		"bind 127.0.0.1:443 ", "bind "+addr+" ",
		"/etc/haproxy/auditstream.pem", dir+"/both.pem")...)
	path := filepath.Join(dir, "haproxy.cfg")
	run := program(t, "haproxy", path, config)
	run(addr, "-db", "-f", path)
	return &balancer{name: "haproxy", URL: "https://" + addr, roots: roots}
}

func startCaddy(t testing.TB, addrs []string) *balancer {
	t.Helper()
	dir, cert, key, roots := certified(t)
	addr := quietAddr(t)
	config := shipped(t, "Caddyfile", append(instead(addrs),
		"{\n\tservers {", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {", // ports that are not ours
		"localhost:443 {", "https://"+addr+" {\n\ttls "+cert+" "+key)...)
	path := filepath.Join(dir, "Caddyfile")
	run := program(t, "caddy", path, config)
	run(addr, "run", "--adapter", "caddyfile", "--config", path)
	return &balancer{name: "caddy", URL: "https://" + addr, roots: roots}
}

// program writes a program's configuration and returns how to run it until the end of the test; it must then have ended
// by itself, at SIGTERM, and it is running once somebody listens on addr.
func program(t testing.TB, name, path, config string) (run func(addr string, args ...string)) {
	t.Helper()
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := exec.LookPath(name)
	if err != nil {
		binary, err = exec.LookPath("/usr/sbin/" + name) // on no ordinary user's PATH
	}
	if err != nil {
		t.Fatalf("no %s: install it with .ci/setup test", name)
	}
	return func(addr string, args ...string) {
		t.Helper()
		log := newLogBuffer()
		cmd := exec.Command(binary, args...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(path)) // Caddy keeps its data there
		done := startProcess(t, cmd)
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			select {
			case <-done:
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				<-done
			}
			if t.Failed() {
				written, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "error.log")) // nginx's alone
				t.Logf("%s said:\n%s%s", name, log.String(), written)
			}
		})
		eventually(t, func() error {
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

// quietAddr is a free address that stays free while nobody listens on it: below the range from which the system takes the
// ports of outgoing connections (32768 on Linux, 49152 on macOS), and not the private servers' of pgtest either.
func quietAddr(t testing.TB) string {
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

// transport makes connections of HTTP/1.1, or HTTP/2, to the balancer.
func (b *balancer) transport(http2 bool) *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: b.roots}, ForceAttemptHTTP2: http2}
}
