package server

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"auditstream/internal/nonblock"
)

const (
	// maxDirectHead is the size in bytes up to which a request's head is served without net/http.
	maxDirectHead = 4 << 10
	// maxIdleWorkers is how many goroutines wait for the next connection, with the stacks that they have grown to.
	maxIdleWorkers = 4
)

// streamListener accepts the connections of the public address. It serves those whose first request is a usual one for a stream itself, and
// gives all others to net/http, which also gets the later requests of a connection. For a stream net/http makes two goroutines, with
// stacks that grow, and 12 kB of buffers that it drops when the connection is taken: a fourth of the processor time of a connect, and half
// of its garbage.
type streamListener struct {
	net.Listener
	server *Handler
	ctx    context.Context      // done at the shutdown
	start  func(f func() error) // starts a goroutine for which Run waits
	conns  chan *net.TCPConn    // to workers that wait
	idle   atomic.Int32         // workers that wait
}

func newStreamListener(ctx context.Context, inner net.Listener, s *Handler, start func(func() error)) net.Listener {
	return &streamListener{Listener: inner, server: s, ctx: ctx, start: start, conns: make(chan *net.TCPConn)}
}

// Accept returns what net/http must serve alone: a connection over its address's limit, and errors.
func (l *streamListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		tcp, ok := conn.(*net.TCPConn)
		if err != nil || !ok {
			return conn, err
		}
		select {
		case l.conns <- tcp:
		default:
			l.start(func() error { l.work(tcp); return nil })
		}
	}
}

// work serves the first requests of connections, one after the other. It ends when enough others wait for the next.
func (l *streamListener) work(conn *net.TCPConn) {
	for {
		l.serve(conn)
		if l.idle.Add(1) > maxIdleWorkers {
			l.idle.Add(-1)
			return
		}
		select {
		case conn = <-l.conns:
			l.idle.Add(-1)
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *streamListener) serve(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil { // the connection is closed, which net/http finds, too
		l.server.pool.GiveToHTTP(conn, nil)
		return
	}
	r, input := l.firstRequest(conn, raw)
	if r == nil {
		l.server.pool.GiveToHTTP(conn, input)
		return
	}
	defer l.server.active.Done()
	r.RemoteAddr = conn.RemoteAddr().String()
	l.server.serveDirect(conn, raw, r)
}

// headReader reads heads of requests. While a client sends nothing, no headReader waits for it.
type headReader struct {
	head   [maxDirectHead]byte
	source bytes.Reader
	parser *bufio.Reader
}

var headReaders = sync.Pool{New: func() any { return &headReader{parser: bufio.NewReader(nil)} }}

// firstRequest waits for the first bytes of a connection. It returns the request that they are, which is counted as an active one, or nil and
// the bytes, for net/http, if they are anything but the whole of a usual request for a stream, or the server is shutting down. A connection
// that sends nothing within headerTimeout, or until the shutdown, is closed.
func (l *streamListener) firstRequest(conn *net.TCPConn, raw syscall.RawConn) (r *http.Request, input []byte) {
	read := func(wait bool) (done bool) {
		_ = raw.Read(func(fd uintptr) bool { // its error is found by who uses the connection next
			h := headReaders.Get().(*headReader)
			defer headReaders.Put(h)
			n, err := nonblock.Read(fd, h.head[:])
			if done = err != syscall.EAGAIN; !done {
				return !wait
			}
			if r = h.parse(h.head[:n]); r == nil || !l.server.enter() {
				r, input = nil, bytes.Clone(h.head[:n])
			}
			return true
		})
		return done
	}
	if read(false) {
		return r, input
	}
	_ = conn.SetReadDeadline(time.Now().Add(headerTimeout)) // an error means that the connection is closed: the read finds that, too
	stop := context.AfterFunc(l.ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	done := read(true)
	stop()
	if !done {
		_ = conn.Close() // net/http takes note of it
		return nil, nil
	}
	_ = conn.SetReadDeadline(time.Time{})
	return r, input
}

// parse returns the request whose head is given, or nil if net/http is to serve it.
func (h *headReader) parse(head []byte) *http.Request {
	if !bytes.HasPrefix(head, []byte("GET /api/v1/sse/")) || bytes.Index(head, []byte("\r\n\r\n")) != len(head)-4 {
		return nil
	}
	h.source.Reset(head)
	h.parser.Reset(&h.source)
	r, err := http.ReadRequest(h.parser)
	if err != nil || h.parser.Buffered()+h.source.Len() > 0 || !isUsual(r, bytes.Count(head, []byte("\n"))-2) {
		return nil
	}
	return r
}

// isUsual reports whether a request, whose head has some lines of fields, is one with which net/http would do nothing but serve it, and keep
// the connection. It makes those checks of net/http's server that http.ReadRequest does not make (net/http/server.go, readRequest); it checks
// the fields' values.
func isUsual(r *http.Request, lines int) bool {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.Close || r.ContentLength != 0 || r.TransferEncoding != nil || !consistsOf(r.Host, letters+".:[]") {
		return false
	}
	fields := 1 // http.ReadRequest removes Host, however often it was sent
	for name, values := range r.Header {
		fields += len(values)
		if !consistsOf(name, letters) {
			return false
		}
		switch name {
		case "Content-Length", "Expect", "Upgrade", "Pragma": // for the last, http.ReadRequest may add a field
			return false
		case "Connection":
			if len(values) != 1 || !strings.EqualFold(values[0], "keep-alive") {
				return false
			}
		}
	}
	return fields == lines
}

// letters are the characters of the usual names; net/http allows more.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func consistsOf(text, characters string) bool {
	return text != "" && strings.Trim(text, characters) == ""
}
