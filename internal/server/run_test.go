package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
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
	testkit.NoError(t, s.Listen(t.Context()))
	return s, untilStopped(t, s.Run)
}

// untilStopped runs a function until stop, or the end of the test.
func untilStopped(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// connect opens a connection, for 30 s at most.
func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	testkit.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return conn
}

// ask sends alice's request for a path, with more header fields like "Origin: https://app.example", and returns conn.
func ask(t *testing.T, conn net.Conn, path string, fields ...string) net.Conn {
	t.Helper()
	fields = append([]string{"GET " + path + " HTTP/1.1", "Host: x", "Authorization: Bearer " + aliceToken(t)}, fields...)
	if _, err := io.WriteString(conn, strings.Join(fields, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// dial sends a request for the stream on a connection of its own.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	return ask(t, connect(t, s.Addr().String()), streamPath)
}

// answered reads an answer with its body from a connection, or from a reader of one.
func answered(t *testing.T, conn io.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	testkit.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	testkit.NoError(t, err)
	return resp, string(body)
}

func TestBytesOnTheWire(t *testing.T) {
	t.Parallel()
	last := ended("completed")
	sub, _ := one(last)
	s, _ := run(t, sub, nil)
	want := "HTTP/1.1 200 OK\r\nCache-Control: no-cache, no-store, no-transform\r\nContent-Type: text/event-stream\r\n" +
		"X-Accel-Buffering: no\r\nDate: [^\r]+\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"[0-9a-f]+\r\n" + regexp.QuoteMeta(begun+event(last)) + lastChunk
	if got := readTo(t, dial(t, s), lastChunk); !regexp.MustCompile("^" + want + "$").MatchString(got) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestShutdownSaysGoodbye(t *testing.T) {
	t.Parallel()
	first := running(1)
	sub, _ := one(first)
	s, stop := run(t, sub, nil)
	conn := dial(t, s)
	readTo(t, conn, begun+event(first)+"\r\n")
	start := time.Now()
	stop()
	if got := time.Since(start); got > 5*time.Second {
		t.Errorf("stopped after %v", got)
	}
	rest, err := io.ReadAll(conn)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]+\r\nretry: \d+\n\n`+lastChunk+`$`).Match(rest) {
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
	sub, _ := one(store.NewState(store.Row{ID: "42", Status: "running", UserID: text("alice"), Message: &huge}))
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

func TestHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := testkit.Certificate(t)
	first, last := running(1), ended("completed")
	sub, states := one(first)
	s, _ := run(t, sub, func(c *Config) { c.CertFile, c.KeyFile = cert, key })
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr().String()+streamPath, nil)
	testkit.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+aliceToken(t))
	resp, err := transport.RoundTrip(r)
	testkit.NoError(t, err)
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

func TestMetricsAreOnTheAdminAddressAlone(t *testing.T) {
	t.Parallel()
	s, _ := run(t, hubFunc(unreachable), nil)
	for addr, want := range map[string]int{s.Addr().String(): 404, s.AdminAddr().String(): 200} {
		for _, path := range []string{"/metrics", "/debug/pprof/"} {
			if resp, _ := answered(t, ask(t, connect(t, addr), path)); resp.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
			}
		}
	}
}

func TestTakenPortIsAnErrorAtStart(t *testing.T) {
	t.Parallel()
	first := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Addr = "127.0.0.1:0" })
	testkit.NoError(t, first.Listen(t.Context()))
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
	testkit.NoError(t, s.Listen(t.Context()))
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
		conn := connect(t, addr)
		if err := conn.SetDeadline(time.Now().Add(4 * time.Second)); err != nil { // the body's deadline is 10 s
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nslow"); err != nil {
			t.Fatal(err)
		}
		if resp, body := answered(t, conn); body != `{"error":"Not found"}` || !resp.Close {
			t.Errorf("%d %q, close %t, want 404 and a close", resp.StatusCode, body, resp.Close)
		}
	}
}

// A panic ends its own request, and is logged as an error; net/http would log it like a client's mistake.
func TestPanicCutsItsConnectionAndIsLogged(t *testing.T) {
	t.Parallel()
	log := new(testkit.Log)
	s, _ := run(t, hubFunc(func(context.Context, []store.Key, store.Viewer, func()) (Subscription, error) { panic("a mistake") }),
		func(c *Config) { c.Logger = log.Logger() })
	if answer, err := io.ReadAll(dial(t, s)); err != nil || len(answer) > 0 {
		t.Errorf("%q, %v; want that the connection is closed", answer, err)
	}
	if !log.Has("level=ERROR", `panic="a mistake"`, "run_test.go") {
		t.Errorf("log %q, want the panic and where it was", log)
	}
}
