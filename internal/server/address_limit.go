package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// addressLimit limits the connections of one client address, which is all that is known of a client before its token. Up to max they
// are served. Beyond max, requests are told to come back later, so that an honest client who shares the address with many is not lost.
// Beyond twice max, connections are closed unread, so that no client can use up the process's file descriptors. Safe for concurrent use.
type addressLimit struct {
	max int // 0: no limit

	mu      sync.Mutex
	open    map[netip.Addr]int
	refused func() // called for each connection that is closed unread
}

func newAddressLimit(maximum int, refused func()) *addressLimit {
	return &addressLimit{max: maximum, refused: refused, open: make(map[netip.Addr]int)}
}

// clientAddr returns the address that a connection counts for.
func clientAddr(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return oneClient(tcp.AddrPort().Addr())
}

// requestAddr returns the same for a request's connection.
func requestAddr(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return oneClient(addr.Addr())
}

// oneClient returns one address for all that a client has: of IPv6 its /64, the least that a client gets (RFC 6177).
func oneClient(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, err := addr.Prefix(64)
		if err == nil { // always: 64 is a valid length for IPv6
			return prefix.Addr()
		}
	}
	return addr
}

// overLimitConn is a connection over its address's limit.
type overLimitConn struct{ net.Conn }

// CloseWrite is what net/http looks for, to end an answer before it closes a connection whose input it has not read.
func (c overLimitConn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// overLimit is a context key: the connection is over its address's limit.
type overLimit struct{}

// connContext is the http.Server's ConnContext: it marks the requests on a connection over the limit.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if _, over := conn.(overLimitConn); over {
		return context.WithValue(ctx, overLimit{}, true)
	}
	return ctx
}

// add counts a connection, unless its address has twice the limit already. It returns the connection, marked if it is over the limit.
func (l *addressLimit) add(conn net.Conn) (marked net.Conn, added bool) {
	addr := clientAddr(conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[addr] >= 2*l.max {
		return conn, false
	}
	if l.open[addr]++; l.open[addr] > l.max {
		return overLimitConn{conn}, true
	}
	return conn, true
}

// connState is the http.Server's ConnState: it releases a connection that has ended. A hijacked one counts until release is called.
func (l *addressLimit) connState(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		l.release(conn)
	}
}

func (l *addressLimit) release(conn net.Conn) {
	if l.max == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	addr := clientAddr(conn)
	if l.open[addr]--; l.open[addr] <= 0 {
		delete(l.open, addr)
	}
}

// limitListener returns a listener that closes connections beyond twice the limit.
func (l *addressLimit) limitListener(inner net.Listener) net.Listener {
	if l.max == 0 {
		return inner
	}
	return &limitedListener{Listener: inner, limit: l}
}

type limitedListener struct {
	net.Listener
	limit *addressLimit
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn, added := l.limit.add(conn)
		if added {
			return conn, nil
		}
		l.limit.refused()
		_ = conn.Close() // nothing was written that an error could lose
	}
}

// isOverLimit reports whether the request came on a connection over its address's limit.
func isOverLimit(r *http.Request) bool { return r.Context().Value(overLimit{}) != nil }
