package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"auditstream/internal/store"
)

// run serves on a free port. stop ends it and waits; it is called by the test or else at its end.
func run(t *testing.T, hub Hub, change func(*Config)) (s *Server, stop func()) {
	t.Helper()
	s = newTestServer(t, hub, func(c *Config) {
		c.Addr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0"
		if change != nil {
			change(c)
		}
	})
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// dial sends a request for the stream on a connection of its own.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	return dialPath(t, s, streamPath)
}

func dialPath(t *testing.T, s *Server, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, aliceToken(t))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestBytesOnTheWire(t *testing.T) {
	t.Parallel()
	last := ended("completed")
	sub, _ := one(last)
	s, _ := run(t, sub, nil)
	got := make([]byte, 4096)
	conn := dial(t, s)
	want := "HTTP/1.1 200 OK\r\nCache-Control: no-cache, no-store, no-transform\r\nContent-Type: text/event-stream\r\n" +
		"X-Accel-Buffering: no\r\nDate: [^\r]+\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"[0-9a-f]+\r\n" + regexp.QuoteMeta(begun+event(last)) + "\r\n0\r\n\r\n"
	n := 0
	for !strings.HasSuffix(string(got[:n]), "\r\n0\r\n\r\n") {
		m, err := conn.Read(got[n:])
		if err != nil {
			t.Fatalf("%v after %q", err, got[:n])
		}
		n += m
	}
	if !regexp.MustCompile("^" + want + "$").Match(got[:n]) {
		t.Errorf("got\n%q\nwant\n%q", got[:n], want)
	}
}

func TestShutdownSaysGoodbye(t *testing.T) {
	t.Parallel()
	first := running(1)
	sub, _ := one(first)
	s, stop := run(t, sub, nil)
	resp, err := http.ReadResponse(bufio.NewReader(dial(t, s)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, len(begun+event(first)))
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	stop()
	if got := time.Since(start); got > 5*time.Second {
		t.Errorf("stopped after %v", got)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !regexp.MustCompile(`^retry: \d+\n\n$`).Match(rest) {
		t.Errorf("got %q, %v, want a retry and a clean end", rest, err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

// A client that takes nothing more must not keep the process alive.
func TestShutdownCutsAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 32<<20) // more than the sockets' buffers hold
	sub, _ := one(store.NewState(store.Audit{ID: "42", Status: "running", UserID: text("alice"), Message: &huge}))
	s, stop := run(t, sub, nil)
	conn := dial(t, s)
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the event is on its way
		t.Fatal(err)
	}
	start := time.Now()
	stop()
	if got := time.Since(start); got > drainTimeout+2*time.Second {
		t.Errorf("stopped after %v, want %v at most", got, drainTimeout)
	}
	if got := s.limit.count(); got != 0 {
		t.Errorf("%d streams still counted", got)
	}
}

func TestClientThatHangsUpEndsTheStream(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	s, _ := run(t, hubFunc(func(context.Context, []store.Key, store.Viewer, func()) (Subscription, error) {
		return countedSlot{newSlot(running(1)), func() { close(gone) }}, nil
	}), nil)
	conn := dial(t, s)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("the stream goes on without its client")
	}
}

func TestHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := certificate(t)
	first, last := running(1), ended("completed")
	sub, states := one(first)
	s, _ := run(t, sub, func(c *Config) { c.CertFile, c.KeyFile = cert, key })
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr().String()+streamPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+aliceToken(t))
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	states.put(last)
	body, err := io.ReadAll(resp.Body)
	if want := begun + event(first) + event(last); err != nil || resp.Proto != "HTTP/2.0" || string(body) != want {
		t.Errorf("%s, %v, got\n%s\nwant\n%s", resp.Proto, err, body, want)
	}
	if got := resp.Header.Get("Connection"); got != "" {
		t.Errorf("Connection: %q on HTTP/2", got)
	}
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, content := range map[string][]byte{
		certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, roots
}

func TestMetricsAreOnTheAdminAddressAlone(t *testing.T) {
	t.Parallel()
	s, _ := run(t, hubFunc(unreachable), nil)
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	for addr, want := range map[string]int{s.Addr().String(): 404, s.AdminAddr().String(): 200} {
		for _, path := range []string{"/metrics", "/debug/pprof/"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
			}
		}
	}
}

func TestTakenPortIsAnErrorAtStart(t *testing.T) {
	t.Parallel()
	first := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Addr = "127.0.0.1:0" })
	if err := first.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	taken := first.Addr().String()
	for name, change := range map[string]func(*Config){
		"HTTP_ADDR":  func(c *Config) { c.Addr = taken },
		"ADMIN_ADDR": func(c *Config) { c.Addr, c.AdminAddr = "127.0.0.1:0", taken },
	} {
		err := newTestServer(t, hubFunc(unreachable), change).Listen(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), name+": cannot listen on "+taken) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestBrokenListenerEndsRun(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Addr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0" })
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = s.public.Close()
	if err := s.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "serve: ") {
		t.Errorf("error %v, want that of Serve", err)
	}
}

// net/http waits for a body before it sends the answer, and the answer's deadline passed meanwhile.
func TestAnswerDoesNotWaitForTheBody(t *testing.T) {
	t.Parallel()
	s, _ := run(t, hubFunc(unreachable), nil)
	for _, addr := range []string{s.Addr().String(), s.AdminAddr().String()} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(4 * time.Second)); err != nil { // the body's deadline is 10 s
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nslow"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != `{"error":"Not found"}` || !resp.Close {
			t.Errorf("%d %q, %v, close %t, want 404 and a close", resp.StatusCode, body, err, resp.Close)
		}
	}
}

// A panic ends its own request, and is logged as an error; net/http would log it like a client's mistake.
func TestPanicCutsItsConnectionAndIsLogged(t *testing.T) {
	t.Parallel()
	log := new(logLines)
	s, _ := run(t, hubFunc(func(context.Context, []store.Key, store.Viewer, func()) (Subscription, error) { panic("a mistake") }), func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	conn := dial(t, s)
	if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
		t.Errorf("%q, %v; want that the connection is closed", answer, err)
	}
	if got := log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, `panic="a mistake"`) || !strings.Contains(got, "run_test.go") {
		t.Errorf("log %q, want the panic and where it was", got)
	}
}
