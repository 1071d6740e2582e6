package server

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"auditstream/internal/connpool"
)

// directAnswer is the http.ResponseWriter of a request that streamListener serves. A stream takes the connection; any other answer is sent
// as one, when the handler has returned.
type directAnswer struct {
	server  *Handler
	conn    *connpool.Conn
	sock    net.Conn
	cancel  context.CancelCauseFunc // of the request's context
	header  http.Header
	status  int
	body    bytes.Buffer
	taken   bool // the connection is a stream's
	chunked bool // the answer was flushed, and its length had not been given
}

// serveDirect serves a request on a connection that net/http has not had.
func (s *Handler) serveDirect(sock *net.TCPConn, raw syscall.RawConn, r *http.Request) {
	ctx, cancel := context.WithCancelCause(s.requests)
	defer cancel(nil)
	w := &directAnswer{server: s, sock: sock, cancel: cancel, header: make(http.Header)}
	w.conn = s.pool.Adopt(sock, raw, w)
	defer w.end()
	s.api.ServeHTTP(w, r.WithContext(ctx))
}

// end sends the answer, and lets the connection wait for the next request. After a panic, which is logged already, it closes the connection,
// as net/http does.
func (w *directAnswer) end() {
	panicked := recover() != nil
	switch {
	case w.taken:
	case panicked, w.send() != nil, w.header.Get("Connection") == "close":
		w.conn.Close()
	default:
		awaitRequest(w.conn)
	}
}

func (w *directAnswer) send() error {
	w.WriteHeader(http.StatusOK)
	if w.server.draining.Load() {
		w.header.Set("Connection", "close")
	}
	w.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	answer := http.Response{StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Header: w.header, ContentLength: int64(w.body.Len()),
		Body: io.NopCloser(&w.body)}
	if w.chunked {
		answer.ContentLength, answer.TransferEncoding = -1, []string{"chunked"}
	}
	var b bytes.Buffer
	if err := answer.Write(&b); err != nil {
		return err
	}
	return writeConn(w.sock, b.Bytes())
}

func (w *directAnswer) Header() http.Header { return w.header }

func (w *directAnswer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *directAnswer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush only makes an answer of unknown length a chunked one, as with net/http: it is whole when its handler returns.
func (w *directAnswer) Flush() { w.chunked = w.header.Get("Content-Length") == "" }

// SetWriteDeadline does nothing: send sets deadlines.
func (w *directAnswer) SetWriteDeadline(time.Time) error { return nil }

// Hijack gives the connection to the stream.
func (w *directAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.taken = true
	return w.conn.Hijack()
}

// Input ends the request's context: the client has disconnected.
func (w *directAnswer) Input() { w.cancel(context.Canceled) }

// Drain does nothing: a request's context ends at the shutdown anyway.
func (w *directAnswer) Drain() {}

// Run is not called: nothing schedules the connection before it has another task.
func (w *directAnswer) Run() {}
