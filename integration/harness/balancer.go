package harness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Balancer is a proxy before three instances, which runs with the configuration that deploy/ ships.
type Balancer struct {
	Name  string
	URL   string
	Roots *x509.CertPool // of its certificate
}

// ports are what the shipped configurations name, in their order.
var ports = []string{"127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"}

// ShippedConfig reads a configuration of deploy/ and replaces pairs of texts, each of which must be there.
func ShippedConfig(t testing.TB, name string, pairs ...string) string {
	t.Helper()
	text, err := os.ReadFile(Path("deploy/" + name))
	NoError(t, err)
	for k := 0; k < len(pairs); k += 2 {
		if !bytes.Contains(text, []byte(pairs[k])) {
			t.Fatalf("deploy/%s has no %q, which the test replaces", name, pairs[k])
		}
	}
	return strings.NewReplacer(pairs...).Replace(string(text))
}

// WithAddresses pairs the addresses of the shipped configurations with those of instances.
func WithAddresses(addrs []string) (pairs []string) {
	for k, addr := range addrs {
		pairs = append(pairs, ports[k], addr)
	}
	return pairs
}

// StartNginx runs nginx before instances, as deploy/nginx.conf has it.
func StartNginx(t testing.TB, addrs []string) *Balancer {
	t.Helper()
	dir, cert, key, roots := NewCertificate(t)
	addr := QuietAddr(t)
	config := ShippedConfig(t, "nginx.conf", append(WithAddresses(addrs),
		"user www-data;\n", "",
		"/run/nginx.pid", dir+"/pid", "/var/log/nginx/error.log", dir+"/error.log", "/var/log/nginx/access.log", dir+"/access.log",
		"http {\n", "http {\n"+TemporaryPaths(dir),
		"listen 443 ", "listen "+addr+" ",
		"/etc/ssl/certs/auditstream.pem", cert, "/etc/ssl/private/auditstream.key", key)...)
	path := filepath.Join(dir, "nginx.conf")
	run := StartProgram(t, "nginx", path, config)
	run(addr, "-e", dir+"/error.log", "-p", dir, "-c", path, "-g", "daemon off;")
	return &Balancer{Name: "nginx", URL: "https://" + addr, Roots: roots}
}

// transport makes connections of HTTP/1.1, or HTTP/2, to the balancer.
func (b *Balancer) transport(http2 bool) *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: b.Roots}, ForceAttemptHTTP2: http2}
}

// Open is a stream's, or any other answer, through the balancer.
func (b *Balancer) Open(t testing.TB, http2 bool, path, token string, headers ...string) *Stream {
	t.Helper()
	s := (&Instance{URL: b.URL}).OpenOn(t, b.transport(http2), path, token, headers...)
	if want := map[bool]int{false: 1, true: 2}[http2]; s.Response.ProtoMajor != want {
		t.Errorf("%s answered in %s, want HTTP/%d", b.Name, s.Response.Proto, want)
	}
	return s
}
