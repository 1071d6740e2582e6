package pgtest

import (
	"net"
	"net/url"
	"testing"

	"auditstream/internal/tcpproxy"
)

// TCPProxy forwards connections to a server, and can fail like a network.
type TCPProxy = tcpproxy.Proxy

// Proxy starts a proxy on 127.0.0.1 that ends with the test.
func Proxy(tb testing.TB, target string) *TCPProxy {
	tb.Helper()
	p, err := tcpproxy.New("tcp", target)
	if err != nil {
		tb.Fatalf("pgtest: proxy: %v", err)
	}
	tb.Cleanup(p.Close)
	return p
}

// ProxyDSN starts a proxy in front of the server of dsn and returns the same dsn through it.
func ProxyDSN(tb testing.TB, dsn string) (*TCPProxy, string) {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatalf("pgtest: proxy: the DSN is not a URL")
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	p := Proxy(tb, net.JoinHostPort(u.Hostname(), port))
	u.Host = p.Addr()
	return p, u.String()
}
