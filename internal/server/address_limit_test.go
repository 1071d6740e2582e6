package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

type addrConn struct {
	net.Conn
	addr net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.addr }

func from(address string) net.Conn {
	return addrConn{addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 40000}}
}

func TestAnAddressIsCountedAsOneClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		if got := clientAddr(from(c.a)) == clientAddr(from(c.b)); got != c.same {
			t.Errorf("%s and %s are one client: %v, want %v", c.a, c.b, got, c.same)
		}
	}
}

func TestConnectionsThatEndAreForgotten(t *testing.T) {
	t.Parallel()
	l := newAddressLimit(1, func() {})
	for range 3 {
		l.add(from("192.0.2.1"))
		l.add(from("192.0.2.2"))
	}
	if _, added := l.add(from("192.0.2.1")); added {
		t.Error("an address has more than twice its limit")
	}
	for range 2 {
		for _, state := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateClosed} {
			l.connState(from("192.0.2.1"), state)
			l.connState(from("192.0.2.2"), state)
		}
	}
	if len(l.open) != 0 {
		t.Errorf("%v are kept, want none", l.open)
	}
}

func TestConnectionsBeyondTheLimitOfTheirAddress(t *testing.T) {
	t.Parallel()
	sub, _ := one(running(10))
	log := new(testkit.Log)
	s, _ := run(t, sub, func(c *Config) { c.MaxConnectionsPerAddress, c.Logger = 2, log.Logger() })
	addr := s.Addr().String()
	ask := func(conn net.Conn, path string) (*http.Response, string) {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nonsense\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		return answered(t, conn)
	}
	within := []net.Conn{connect(t, addr), connect(t, addr)}
	if resp, _ := ask(within[0], streamPath); resp.StatusCode != http.StatusUnauthorized || resp.Close {
		t.Errorf("within the limit: status %d, closed %v, want 401 on a connection that stays", resp.StatusCode, resp.Close)
	}

	resp, body := ask(connect(t, addr), streamPath)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "retry: ") || !strings.HasSuffix(body, "data: {\"error\":\"Too many connections\"}\n\n") || !resp.Close {
		t.Errorf("a stream beyond the limit: %d, closed %v, %q; want that it may come back, before the token is looked at", resp.StatusCode, resp.Close, body)
	}
	resp, body = ask(connect(t, addr), statusPathOf42)
	if resp.StatusCode != http.StatusServiceUnavailable || body != `{"error":"Too many connections"}` || resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("a poll beyond the limit: %d, closed %v, %q", resp.StatusCode, resp.Close, body)
	}

	// As many again are open and silent: further connections are closed unread.
	silent := []net.Conn{connect(t, addr), connect(t, addr)}
	if n, err := connect(t, addr).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("beyond twice the limit: read %d bytes, %v; want that the connection is closed", n, err)
	}
	if log.Count("HTTP_MAX_CONNECTIONS_PER_ADDRESS") != 1 {
		t.Errorf("log %q, want one warning that names the variable", log)
	}

	for _, conn := range append(within, silent...) {
		testkit.NoError(t, conn.Close())
	}
	testkit.Eventually(t, "there is room again when the others are closed", func() bool { return isServed(t, addr) })
}

// isServed says whether a new connection is answered, and not closed because of a limit.
func isServed(t *testing.T, addr string) bool {
	t.Helper()
	conn := connect(t, addr)
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	return err == nil && resp.StatusCode == http.StatusOK && !resp.Close
}
