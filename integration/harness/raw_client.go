package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// RawClient sends a stream request over a bare TCP connection with a small receive buffer, and reads nothing.
func (i *Instance) RawClient(t testing.TB, id, extra string) *net.TCPConn {
	t.Helper()
	u, err := url.Parse(i.URL)
	NoError(t, err)
	conn, err := SmallBufferDialer().DialContext(t.Context(), "tcp", u.Host)
	NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	_, err = fmt.Fprintf(conn, "GET /api/v1/sse/audits/%s/progress HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n%s",
		id, u.Host, AliceToken(t), extra)
	NoError(t, err)
	return conn.(*net.TCPConn)
}

// SmallBufferDialer makes connections with a small receive buffer. It is set before connecting: it decides how much the
// client may ever be sent unread.
func SmallBufferDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return errors.Join(err, failed)
	}}
}

// ReaderFunc is a function as an io.Reader.
type ReaderFunc func(p []byte) (int, error)

func (f ReaderFunc) Read(p []byte) (int, error) { return f(p) }

// RetryField picks the delay out of a stream's bytes, which the parser does not hand out.
type RetryField struct {
	Retry *time.Duration
	line  []byte
}

func (f *RetryField) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			f.line = append(f.line, b)
			continue
		}
		if digits, ok := bytes.CutPrefix(f.line, []byte("retry: ")); ok {
			if ms, err := strconv.Atoi(string(digits)); err == nil {
				*f.Retry = time.Duration(ms) * time.Millisecond
			}
		}
		f.line = f.line[:0]
	}
	return len(p), nil
}
