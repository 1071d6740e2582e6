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

// connection is the sink of a stream on a connection taken from net/http, whose two goroutines and buffers would be nine tenths
// of what it costs. The pool's writers run the stream.
type connection struct {
	*connpool.Conn
	head []byte // of the answer, until it is written
}

// take takes the connection of a request from net/http. It returns nil, and net/http keeps it, for HTTP/2, TLS, and answers after
// which net/http would close it.
func (s *Handler) take(w http.ResponseWriter, r *http.Request) *connection {
	if s.pool == nil || r.TLS != nil || r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.Close || w.Header().Get("Connection") != "" {
		return nil
	}
	conn := s.pool.Take(w)
	if conn == nil {
		return nil
	}
	setEventHeader(w.Header())
	if !s.keeps {
		w.Header().Set("Connection", "close")
	}
	return &connection{Conn: conn, head: responseHead(w.Header())}
}

// responseHead is the head of the answer as net/http writes it.
func responseHead(header http.Header) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = header.Write(&b) // a buffer takes everything
	b.WriteString("Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	return b.Bytes()
}

// serve sends the first states, in the handler, and leaves the rest to the writers.
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

// send writes a block as one chunk, of which the event, shared by all streams, is not copied.
func (c *connection) send(text string, event []byte) error {
	own := append(make([]byte, 0, len(c.head)+len("ffffffff\r\n")+len(text)), c.head...)
	own = append(strconv.AppendInt(own, int64(len(text)+len(event)), 16), crlf...)
	c.head = nil
	return c.Write(append(own, text...), event, crlf)
}

// close ends the answer. After a clean end the connection is kept, as net/http keeps it.
func (c *connection) close(st *stream, reason string, sound bool) (over bool) {
	switch {
	case !sound, c.Write([]byte("0\r\n\r\n")) != nil, reason == endShutdown:
		c.Close()
	case !st.server.keeps:
		c.Close()
	case st.timer == nil, !c.Rest():
		c.HandBack()
	default:
		st.end = time.Now().Add(idleTimeout)
		st.timer.Reset(idleTimeout)
		return false
	}
	return true
}

// rest waits, without a goroutine, for the client's next request or its end, and reports whether it came.
func (c *connection) rest(st *stream, due uint32) (over bool) {
	switch {
	case due&dueInput != 0:
		c.HandBack()
	case due&dueDrain != 0, due&dueTime != 0 && !time.Now().Before(st.end):
		c.Close()
	default:
		return false
	}
	st.stopTimer()
	return true
}
