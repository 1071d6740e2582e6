// Package tcpproxy forwards connections for tests, and can fail like a network. Packages pgtest and auditstreamtest use it.
//
// The rule that keeps it right: its address never changes, whatever happens to the target.
package tcpproxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Proxy forwards connections to a target, and can fail like a network. Its address never changes. Safe for concurrent use.
type Proxy struct {
	listener net.Listener
	cancel   context.CancelFunc // ends dials and waits for Resume
	wg       sync.WaitGroup
	network  string

	mu     sync.Mutex
	closed bool
	target string
	open   chan struct{} // closed while the proxy forwards; replaced by Pause
	conns  map[net.Conn]struct{}
}

// New starts a proxy on 127.0.0.1 in front of target, an address of network, tcp or unix. The caller closes it.
func New(network, target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{listener: listener, cancel: cancel, network: network, target: target, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.open)
	p.wg.Go(func() { p.accept(ctx) })
	return p, nil
}

// Addr returns the proxy's own address.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget changes where connections made from now on lead to.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Pause stops forwarding in both directions, also that a side has closed. Connections stay open and new ones are accepted, but nothing comes
// through, as behind a router that has lost its state.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default: // paused already
	}
}

// Resume forwards again, beginning with what was held back.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// DropAll resets all connections, on both sides.
func (p *Proxy) DropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		reset(conn)
	}
}

// Close closes all connections and waits until all goroutines of the proxy have ended. It may be called twice.
func (p *Proxy) Close() {
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

func (p *Proxy) accept(ctx context.Context) {
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
func (p *Proxy) serve(ctx context.Context, client net.Conn) {
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
	server, err := dialer.DialContext(ctx, p.network, p.currentTarget())
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
func (p *Proxy) pump(ctx context.Context, to, from net.Conn) {
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
func (p *Proxy) wait(ctx context.Context) bool {
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

func (p *Proxy) currentTarget() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// track registers a connection for DropAll and Close. After Close, it closes the connection and returns false.
func (p *Proxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = conn.Close()
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) forget(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}
