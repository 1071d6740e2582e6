package connpool

import (
	"net"
	"sync"
)

// returnListener gives connections to net/http: those back whose stream has ended, for their next request, and new ones.
type returnListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newReturnListener(addr net.Addr) *returnListener {
	return &returnListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// GiveToHTTP gives net/http a connection of which input was already read, and waits until it is accepted. During the shutdown it closes it.
func (p *Pool) GiveToHTTP(conn net.Conn, input []byte) {
	select {
	case p.returned.conns <- &readConn{Conn: conn, input: input}:
	case <-p.returned.closed:
		_ = conn.Close()
		p.cfg.Gone(conn)
	}
}

func (b *returnListener) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *returnListener) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func (b *returnListener) Addr() net.Addr { return b.addr }

// readConn is a connection of which some input was already read. Read returns that input first.
type readConn struct {
	net.Conn
	input []byte
}

func (c *readConn) Read(p []byte) (int, error) {
	if len(c.input) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.input)
	if c.input = c.input[n:]; len(c.input) == 0 {
		c.input = nil
	}
	return n, nil
}

// CloseWrite is what net/http looks for, to end an answer before it closes a connection whose input it has not read.
func (c *readConn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}
