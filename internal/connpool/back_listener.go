package connpool

import (
	"net"
	"sync"
)

// backListener hands connections on which a stream has ended to net/http, for their next request.
type backListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newBackListener(addr net.Addr) *backListener {
	return &backListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// hand reports whether net/http has taken the connection; it has not once it is shutting down.
func (b *backListener) hand(conn net.Conn) bool {
	select {
	case b.conns <- conn:
		return true
	case <-b.closed:
		return false
	}
}

func (b *backListener) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *backListener) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func (b *backListener) Addr() net.Addr { return b.addr }

// reusedConn begins with what had been read of it already.
type reusedConn struct {
	net.Conn
	input []byte
}

func (c *reusedConn) Read(p []byte) (int, error) {
	if len(c.input) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.input)
	if c.input = c.input[n:]; len(c.input) == 0 {
		c.input = nil
	}
	return n, nil
}
