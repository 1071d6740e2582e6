package server

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"time"

	"auditstream/internal/connpool"
	"auditstream/internal/store"
)

// connection is the sink of a stream on a hijacked connection. With net/http, its two goroutines and its buffers would be nine tenths of
// the stream's memory. The pool's writers run the stream.
type connection struct {
	*connpool.Conn
	head []byte // the answer's head; nil once it is written
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
	return &connection{Conn: conn, head: responseHead(w.Header())}
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
	if !st.begin(first) {
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
func (c *connection) close(st *stream, reason string, sound bool) (over bool) {
	switch {
	case !sound, c.Write([]byte("0\r\n\r\n")) != nil, reason == endShutdown:
		c.Close()
	case !st.server.keepsAlive:
		c.Close()
	case !c.AwaitRequest():
		c.ReturnToHTTP()
	default:
		st.end = time.Now().Add(idleTimeout)
		st.stopTimer()
		st.timer = time.AfterFunc(idleTimeout, st.timeIsDue)
		return false
	}
	return true
}

// afterEnd handles what happens while the connection waits, without a goroutine: the next request, which net/http gets, a disconnect, or
// idleTimeout. It reports whether the wait is over.
func (c *connection) afterEnd(st *stream, due uint32) (over bool) {
	switch {
	case due&dueInput != 0:
		c.ReturnToHTTP()
	case due&dueDrain != 0, due&dueTime != 0 && !time.Now().Before(st.end):
		c.Close()
	default:
		return false
	}
	st.stopTimer()
	return true
}
