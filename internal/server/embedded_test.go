package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"auditstream/internal/testkit"
)

func newTestHandler(t *testing.T, hub Hub, change func(*Config)) *Handler {
	t.Helper()
	cfg := testConfig(hub)
	if change != nil {
		change(&cfg)
	}
	h, err := NewHandler(t.Context(), cfg)
	testkit.NoError(t, err)
	t.Cleanup(h.Close)
	return h
}

// embed runs a handler in another program's HTTP server.
func embed(t *testing.T, hub Hub, wrap func(http.Handler) http.Handler, listener func(net.Listener) net.Listener) (h *Handler, addr string, stop func()) {
	t.Helper()
	h = newTestHandler(t, hub, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	addr = l.Addr().String()
	if listener != nil {
		l = listener(l)
	}
	theirs := &http.Server{Handler: wrap(h)}
	served := make(chan error, 1)
	go func() { served <- theirs.Serve(l) }()
	stop = untilStopped(t, h.Run)
	t.Cleanup(func() {
		stop()
		if err := theirs.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return h, addr, stop
}

func itself(h http.Handler) http.Handler { return h }

// wrapped is a connection of another listener, like netutil.LimitListener's and those of the PROXY protocol.
type wrapped struct{ net.Conn }

type wrappingListener struct{ net.Listener }

func (l wrappingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return wrapped{conn}, nil
}

// noUnwrap hides all but what an http.ResponseWriter must have, as some middleware does.
type noUnwrap struct{ w http.ResponseWriter }

func (n noUnwrap) Header() http.Header         { return n.w.Header() }
func (n noUnwrap) WriteHeader(status int)      { n.w.WriteHeader(status) }
func (n noUnwrap) Write(p []byte) (int, error) { return n.w.Write(p) }

// With any server and middleware a stream shows each state, and at the end of Run it sends a retry field and ends.
func TestEmbeddedStream(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wrap     func(http.Handler) http.Handler
		listener func(net.Listener) net.Listener
		path     string
	}{
		"bare":                              {itself, nil, streamPath},
		"prefix":                            {func(h http.Handler) http.Handler { return http.StripPrefix("/app", h) }, nil, "/app" + streamPath},
		"a listener that wraps connections": {itself, func(l net.Listener) net.Listener { return wrappingListener{l} }, streamPath},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub, states := one(running(1))
			h, addr, stop := embed(t, hub, tc.wrap, tc.listener)
			conn := ask(t, connect(t, addr), tc.path)
			readTo(t, conn, `"progress":1}`)
			testkit.Eventually(t, "the stream is taken from net/http", func() bool { return h.pool.Len() == 1 && h.limit.count() == 1 })
			states.put(running(55))
			readTo(t, conn, `"progress":55}`)
			stop()
			rest, err := io.ReadAll(conn)
			if err != nil || !strings.Contains(string(rest), "retry: ") {
				t.Errorf("the stream ended with %q, %v, want retry:", rest, err)
			}
		})
	}
}

// If middleware hides the methods that a stream needs, the log says so, and the client reconnects.
func TestMiddlewareThatHidesTheConnectionIsNamed(t *testing.T) {
	t.Parallel()
	hub, _ := one(running(1))
	log := new(testkit.Log)
	h := newTestHandler(t, hub, func(c *Config) { c.Logger = log.Logger() })
	c := newClient()
	h.ServeHTTP(noUnwrap{c}, authorized(t, streamPath))
	if c.status != 500 || !log.Has("Unwrap() http.ResponseWriter") {
		t.Errorf("%d, log %s", c.status, log)
	}
}

// A stream's end closes its connection, and its head says so: the handler cannot give the connection back to a foreign server.
func TestEmbeddedStreamClosesItsConnection(t *testing.T) {
	t.Parallel()
	hub, states := one(running(1))
	_, addr, _ := embed(t, hub, itself, nil)
	conn := ask(t, connect(t, addr), streamPath)
	if head := readTo(t, conn, "\r\n\r\n"); !strings.Contains(head, "Connection: close\r\n") {
		t.Errorf("head %q, want Connection: close", head)
	}
	states.put(ended("completed"))
	all, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(all), lastChunk) {
		t.Errorf("%v after %q, want a whole answer", err, all)
	}
}

// A disconnect is noticed, also on a connection without a file descriptor for epoll.
func TestEmbeddedStreamEndsWithItsClient(t *testing.T) {
	t.Parallel()
	for _, listener := range []func(net.Listener) net.Listener{nil, func(l net.Listener) net.Listener { return wrappingListener{l} }} {
		hub, _ := one(running(1))
		h, addr, _ := embed(t, hub, itself, listener)
		conn := ask(t, connect(t, addr), streamPath)
		readTo(t, conn, `"progress":1}`)
		_ = conn.Close()
		testkit.Eventually(t, "the stream has ended", func() bool { return h.limit.count() == 0 && h.pool.Len() == 0 })
	}
}

// After Run streams are told to reconnect, and other requests are refused.
func TestEmbeddedHandlerOutlivesRun(t *testing.T) {
	t.Parallel()
	hub, _ := one(running(1))
	_, addr, stop := embed(t, hub, itself, nil)
	stop()
	for path, want := range map[string]struct {
		status int
		text   string
	}{streamPath: {200, "retry: "}, statusPathOf42: {503, "Server is shutting down"}} {
		resp, body := answered(t, ask(t, connect(t, addr), path))
		if resp.StatusCode != want.status || !strings.Contains(body, want.text) {
			t.Errorf("%s: %d %q, want %d with %q", path, resp.StatusCode, body, want.status, want.text)
		}
	}
}

// bytesInUse returns this process's memory in use, with the stacks of goroutines.
func bytesInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// A stream in another program's server needs at most twice the memory of serve's. Not parallel: it measures the process.
func TestEmbeddedStreamIsSmall(t *testing.T) {
	const n = 400
	weigh := func(addr string, open func() int) (each float64) {
		var conns []net.Conn
		before := bytesInUse()
		for range n {
			conns = append(conns, ask(t, connect(t, addr), streamPath))
		}
		for _, conn := range conns {
			readTo(t, conn, `"progress":1}`)
		}
		testkit.Eventually(t, "all are taken", func() bool { return open() == n })
		return (float64(bytesInUse()) - float64(before)) / n
	}
	hub := eachOwn(newSlots(n))
	s, stop := run(t, hub, func(c *Config) { c.MaxStreamsPerUser = 0 })
	serve := weigh(s.Addr().String(), s.pool.Len)
	stop()
	h, addr, _ := embed(t, eachOwn(newSlots(n)), itself, nil)
	embedded := weigh(addr, h.pool.Len)
	t.Logf("serve %.0f bytes a stream, embedded %.0f", serve, embedded)
	if embedded > 2*serve || embedded > 20_000 {
		t.Errorf("an embedded stream holds %.0f bytes, serve's %.0f; want twice that at most", embedded, serve)
	}
}

// Viewer returns the session's user; the text of its error goes to the log.
func TestViewerErrors(t *testing.T) {
	t.Parallel()
	secret := errors.New("a secret cause")
	for name, tc := range map[string]struct {
		err            error
		status, stream int
		text           string
	}{
		"signed in":         {nil, 200, 200, `"progress":100`},
		"nobody":            {fmt.Errorf("%w: %w", ErrUnauthenticated, secret), 401, 401, "Missing authentication token"},
		"denied":            {fmt.Errorf("%w: %w", ErrDenied, secret), 403, 403, "Cross-user access denied"},
		"not found":         {fmt.Errorf("%w: %w", ErrNotFound, secret), 404, 404, "Audit not found"},
		"sessions are away": {secret, 503, 200, "Internal server error"},
	} {
		for path, want := range map[string]int{statusPathOf42: tc.status, streamPath: tc.stream} {
			hub, _ := one(ended("completed"))
			h := newTestHandler(t, hub, func(c *Config) {
				c.Auth = AuthConfig{}
				c.Viewer = func(r *http.Request) (v Viewer, err error) {
					v.Subject = r.Header.Get("X-User")
					return v, tc.err
				}
			})
			c := newClient()
			h.ServeHTTP(c, get(t, path, "X-User", "alice"))
			if c.status != want || !strings.Contains(c.String(), tc.text) || strings.Contains(c.String(), "secret") {
				t.Errorf("%s, %s: %d %q, want %d with %q", name, path, c.status, c.String(), want, tc.text)
			}
		}
	}
}

// When a session ends, its streams end.
func TestViewerExpires(t *testing.T) {
	t.Parallel()
	hub, _ := one(running(1))
	h := newTestHandler(t, hub, func(c *Config) {
		c.Auth = AuthConfig{}
		c.Viewer = func(*http.Request) (Viewer, error) {
			v := Viewer{Expires: time.Now().Add(100 * time.Millisecond)}
			v.Subject = "alice"
			return v, nil
		}
	})
	c := newClient()
	h.ServeHTTP(c, get(t, streamPath))
	if !strings.HasSuffix(c.String(), "data: {\"error\":\"Token expired\"}\n\n") {
		t.Errorf("the stream ended with %q", c.String())
	}
}
