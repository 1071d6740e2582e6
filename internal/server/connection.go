package server

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"auditstream/internal/connpool"
	"auditstream/internal/store"
)

// connection is the sink of a stream on a hijacked connection. With net/http, its two goroutines and its buffers would be nine tenths of
// the stream's memory. The pool's writers run the stream.
type connection struct {
	*connpool.Conn
	head       []byte // the answer's head; nil once it is written
	keepsAlive bool   // Handler.keepsAlive
}

// hijack takes the connection of a request from net/http. It returns nil, and net/http keeps the connection, for HTTP/2, TLS, and answers
// after which net/http would close it.
func (s *Handler) hijack(w http.ResponseWriter, r *http.Request) *connection {
	if s.pool == nil || r.TLS != nil || r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.Close || w.Header().Get("Connection") != "" {
		return nil
	}
	conn := s.pool.Hijack(w)
	if conn == nil {
		return nil
	}
	setEventHeader(w.Header())
	if !s.keepsAlive {
		w.Header().Set("Connection", "close")
	}
	return &connection{Conn: conn, head: responseHead(w.Header()), keepsAlive: s.keepsAlive}
}

// responseHead returns the head of the answer as net/http would write it.
func responseHead(header http.Header) []byte {
	var b bytes.Buffer
	b.Grow(512) // with the usual fields it does not grow again
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = header.Write(&b) // a write to a buffer does not fail
	b.WriteString("Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	return b.Bytes()
}

// serve sends the first states in the handler's goroutine; the pool's writers do the rest.
func (c *connection) serve(st *stream, first []*store.State) {
	st.events.out = c
	c.Begin(st)
	st.begin(first)
	if st.sub != nil {
		c.Serve()
	}
}

// writeConn writes to a client that may be slow.
func writeConn(conn net.Conn, p []byte) error {
	if err := writePieces(conn, conn, p); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

var crlf = []byte("\r\n")

// send writes a block as one chunk of HTTP/1.1. The event is shared by all streams, so it is not copied.
func (c *connection) send(text string, event []byte) error {
	own := append(make([]byte, 0, len(c.head)+len("ffffffff\r\n")+len(text)), c.head...)
	own = append(strconv.AppendInt(own, int64(len(text)+len(event)), 16), crlf...)
	c.head = nil
	return c.Write(append(own, text...), event, crlf)
}

// close ends the answer. After a clean end the connection waits for the client's next request, as with net/http.
func (c *connection) close(reason string, sound bool) {
	if !sound || c.Write([]byte("0\r\n\r\n")) != nil || reason == endShutdown || !c.keepsAlive {
		c.Close()
		return
	}
	awaitRequest(c.Conn)
}

// idleConn is a connection that waits for its client's next request, without a goroutine.
type idleConn struct {
	*connpool.Conn
	timer     *time.Timer
	left      atomic.Bool // the wait is over
	requested bool        // it ended because of input; Run reads this after left was set
}

// awaitRequest makes a connection whose answer is complete wait for the next request, which net/http gets, until idleTimeout. net/http
// would close it after headerTimeout: for it, it is a new one.
func awaitRequest(conn *connpool.Conn) {
	if !conn.AwaitRequest() {
		conn.ReturnToHTTP()
		return
	}
	c := &idleConn{Conn: conn}
	c.timer = time.AfterFunc(idleTimeout, c.Drain)
	c.Begin(c) // last: if input or the shutdown has come already, Run is called at once
}

// Input says that the next request has come, or that the client has disconnected, which net/http finds.
func (c *idleConn) Input() { c.leave(true) }

// Drain is called at the shutdown, and after idleTimeout.
func (c *idleConn) Drain() { c.leave(false) }

// leave makes a writer call Run, once.
func (c *idleConn) leave(requested bool) {
	if !c.left.Swap(true) {
		c.requested = requested
		c.Schedule()
	}
}

// Run ends the wait.
func (c *idleConn) Run() {
	c.timer.Stop()
	if c.requested {
		c.ReturnToHTTP()
	} else {
		c.Close()
	}
}
