package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// addressLimit bounds the connections of one client address, which is all that is known of a client before its token. Up
// to max they are served. Those beyond it are told to come back later, so that an honest client behind a crowded address
// is not lost; beyond twice max they are closed unread, so that nobody takes all of the process's file descriptors. Safe
// for concurrent use.
type addressLimit struct {
	max int // 0: no limit

	mu      sync.Mutex
	open    map[netip.Addr]int
	refused func() // one was closed unread
}

func newAddressLimit(maximum int, refused func()) *addressLimit {
	return &addressLimit{max: maximum, refused: refused, open: make(map[netip.Addr]int)}
}

// clientAddr is what a connection is counted by.
func clientAddr(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return oneClient(tcp.AddrPort().Addr())
}

// requestAddr is clientAddr of a request's connection.
func requestAddr(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return oneClient(addr.Addr())
}

// oneClient is the same for all addresses that one client has. An IPv6 client commands at least a /64 (RFC 6177).
func oneClient(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, err := addr.Prefix(64)
		if err == nil { // always: 64 is a length that IPv6 has
			return prefix.Addr()
		}
	}
	return addr
}

// overLimit marks the context of a connection beyond the limit.
type overLimit struct{}

// opened is an http.Server's ConnContext: it counts a connection, and marks one beyond the limit.
func (l *addressLimit) opened(ctx context.Context, conn net.Conn) context.Context {
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

// changed is an http.Server's ConnState: it stops counting a connection that has ended. One that is hijacked counts until
// closed is called.
func (l *addressLimit) changed(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		l.closed(conn)
	}
}

func (l *addressLimit) closed(conn net.Conn) {
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

// listener closes what its address may not have.
func (l *addressLimit) listener(inner net.Listener) net.Listener {
	if l.max == 0 {
		return inner
	}
	return &limitedListener{Listener: inner, limit: l}
}

type limitedListener struct {
	net.Listener
	limit *addressLimit
}

// Accept is called by one goroutine, which counts each connection before it asks for the next.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.limit.full(conn) {
			return conn, err
		}
		l.limit.refused()
		_ = conn.Close() // nothing was written to it that could be lost
	}
}

// isOverLimit reports whether the request came on a connection beyond its address's limit.
func isOverLimit(r *http.Request) bool { return r.Context().Value(overLimit{}) != nil }

// closeOverLimit ends the connections beyond the limit after one answer each, so that they count no longer than it takes.
func closeOverLimit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOverLimit(r) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
