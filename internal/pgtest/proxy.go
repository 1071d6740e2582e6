package pgtest

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"time"
)

// TCPProxy forwards connections to a target, and can fail like a network. Its address never changes. Safe for concurrent use.
type TCPProxy struct {
	listener net.Listener
	cancel   context.CancelFunc // ends dials and waits for Resume
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	target string
	open   chan struct{} // closed while the proxy forwards; replaced by Pause
	conns  map[net.Conn]struct{}
}

// Proxy starts a proxy on 127.0.0.1 that ends with the test.
func Proxy(tb TB, target string) *TCPProxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("pgtest: proxy: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &TCPProxy{listener: listener, cancel: cancel, target: target, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.open)
	p.wg.Go(func() { p.accept(ctx) })
	tb.Cleanup(p.Close)
	return p
}

// ProxyDSN starts a proxy in front of the server of dsn and returns the same dsn through it.
func ProxyDSN(tb TB, dsn string) (*TCPProxy, string) {
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

// Addr is the proxy's own address.
func (p *TCPProxy) Addr() string { return p.listener.Addr().String() }

// SetTarget changes the target of new connections.
func (p *TCPProxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Pause stops forwarding in both directions, also that a side has closed. Connections stay open and new ones are accepted, but nothing comes
// through, as behind a router that has lost its state.
func (p *TCPProxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default: // paused already
	}
}

// Resume forwards again, beginning with what was held back.
func (p *TCPProxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// DropAll resets all connections, on both sides.
func (p *TCPProxy) DropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		reset(conn)
	}
}

// Close closes all connections and waits until all goroutines of the proxy have ended. It may be called twice.
func (p *TCPProxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	_ = p.listener.Close()
	p.DropAll()
	p.wg.Wait()
}

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // close with RST
	}
	_ = conn.Close()
}

func (p *TCPProxy) accept(ctx context.Context) {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // that one connection failed
		}
		p.wg.Go(func() { p.serve(ctx, conn) })
	}
}

// serve connects one client to the target until either side closes.
func (p *TCPProxy) serve(ctx context.Context, client net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !p.track(client) {
		return
	}
	defer p.forget(client)
	if !p.wait(ctx) {
		return
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	server, err := dialer.DialContext(ctx, "tcp", p.currentTarget())
	if err != nil {
		reset(client)
		return
	}
	if !p.track(server) {
		return
	}
	defer p.forget(server)

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(ctx, server, client) })
	pumps.Go(func() { p.pump(ctx, client, server) })
	pumps.Wait()
}

// pump copies one direction. At its end it closes both sides, which ends the other direction, too.
func (p *TCPProxy) pump(ctx context.Context, to, from net.Conn) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, net.ErrClosed) || !p.wait(ctx) {
			return
		}
		if _, writeErr := to.Write(buf[:n]); writeErr != nil || err != nil {
			return
		}
	}
}

// wait blocks while the proxy is paused. It returns false when the proxy is closed.
func (p *TCPProxy) wait(ctx context.Context) bool {
	for {
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		select {
		case <-open:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func (p *TCPProxy) currentTarget() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// track registers a connection for DropAll and Close. After Close, it closes the connection and returns false.
func (p *TCPProxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = conn.Close()
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *TCPProxy) forget(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}
