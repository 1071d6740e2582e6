package faults

import (
	"os"
	"path/filepath"
	"testing"

	"auditstream/integration/harness"
)

func startHAProxy(t testing.TB, addrs []string) *harness.Balancer {
	t.Helper()
	dir, cert, key, roots := harness.NewCertificate(t)
	var both []byte // HAProxy wants them in one file
	for _, file := range []string{cert, key} {
		text, err := os.ReadFile(file)
		harness.NoError(t, err)
		both = append(both, text...)
	}
	harness.NoError(t, os.WriteFile(filepath.Join(dir, "both.pem"), both, 0o600))
	addr := harness.QuietAddr(t)
	config := harness.ShippedConfig(t, "haproxy.cfg", append(harness.WithAddresses(addrs),
		"user haproxy\n", "\n", "group haproxy\n", "\n", "log /dev/log local0", "log stderr format raw local0",
		"maxconn 20000", "maxconn 1000", // an ordinary user may not raise the limit of descriptors
		"bind 127.0.0.1:443 ", "bind "+addr+" ",
		"/etc/haproxy/auditstream.pem", dir+"/both.pem")...)
	path := filepath.Join(dir, "haproxy.cfg")
	run := harness.StartProgram(t, "haproxy", path, config)
	run(addr, "-db", "-f", path)
	return &harness.Balancer{Name: "haproxy", URL: "https://" + addr, Roots: roots}
}

func startCaddy(t testing.TB, addrs []string) *harness.Balancer {
	t.Helper()
	dir, cert, key, roots := harness.NewCertificate(t)
	addr := harness.QuietAddr(t)
	config := harness.ShippedConfig(t, "Caddyfile", append(harness.WithAddresses(addrs),
		"{\n\tservers {", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {", // ports that are not ours
		"localhost:443 {", "https://"+addr+" {\n\ttls "+cert+" "+key)...)
	path := filepath.Join(dir, "Caddyfile")
	run := harness.StartProgram(t, "caddy", path, config)
	run(addr, "run", "--adapter", "caddyfile", "--config", path)
	return &harness.Balancer{Name: "caddy", URL: "https://" + addr, Roots: roots}
}
