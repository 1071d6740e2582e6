package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// RawClient sends a stream request over a bare TCP connection with a small receive buffer, and reads nothing.
func (i *Instance) RawClient(t testing.TB, id, extra string) *net.TCPConn {
	t.Helper()
	conn := dial(t, SmallBufferDialer(), i.URL)
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n%s", StreamPath(id), conn.RemoteAddr(), AliceToken(t), extra)
	NoError(t, err)
	return conn
}

// Dial opens a TCP connection to the host of a URL, on which nothing may take longer than our patience.
func Dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn := dial(t, new(net.Dialer), address)
	NoError(t, conn.SetDeadline(time.Now().Add(Patience)))
	return conn
}

func dial(t testing.TB, dialer *net.Dialer, address string) *net.TCPConn {
	t.Helper()
	u, err := url.Parse(address)
	NoError(t, err)
	conn, err := dialer.DialContext(t.Context(), "tcp", u.Host)
	NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn.(*net.TCPConn)
}

// Trickle sends the beginning of a request to the host of a URL, and then a drop every now and then. The function it returns waits until the
// server has closed the connection, and says when and after which answer.
func Trickle(t testing.TB, address, begin, drop string) (closed func(t testing.TB, what string) (took time.Duration, answer string)) {
	t.Helper()
	start, ended := time.Now(), make(chan struct{})
	conn := dial(t, new(net.Dialer), address)
	var took time.Duration
	var got []byte
	go func() {
		defer close(ended)
		_, err := conn.Write([]byte(begin))
		for buf, n := make([]byte, 4096), 0; err == nil; got = append(got, buf[:n]...) {
			// The connection has ended when a read says so; until then its deadline is the pause between drops.
			_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if n, err = conn.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
				_, err = conn.Write([]byte(drop))
			}
		}
		took = time.Since(start)
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	return func(t testing.TB, what string) (time.Duration, string) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(Patience):
			t.Fatalf("%s: the connection is open after %v", what, Patience)
		}
		return took, string(got)
	}
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
