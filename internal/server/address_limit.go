package server

import (
	"context"
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

// overLimit is a context key: the connection is over its address's limit.
type overLimit struct{}

// connContext is the http.Server's ConnContext: it counts a connection, and marks one over the limit.
func (l *addressLimit) connContext(ctx context.Context, conn net.Conn) context.Context {
	if l.max == 0 {
		return ctx
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	addr := clientAddr(conn)
	l.open[addr]++
	if l.open[addr] > l.max {
		return context.WithValue(ctx, overLimit{}, true)
	}
	return ctx
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

func (l *addressLimit) full(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[clientAddr(conn)] >= 2*l.max
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

// Accept has one caller, which counts each connection (connContext) before it accepts the next.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.limit.full(conn) {
			return conn, err
		}
		l.limit.refused()
		_ = conn.Close() // nothing was written that an error could lose
	}
}

// isOverLimit reports whether the request came on a connection over its address's limit.
func isOverLimit(r *http.Request) bool { return r.Context().Value(overLimit{}) != nil }

// closeOverLimit closes each connection over the limit after one answer, so that it counts only briefly.
func closeOverLimit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOverLimit(r) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
