package nonblock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/testkit"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns both ends of a connection.
func pair(t testing.TB, network string) (a, b net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	l, err := net.Listen(network, address)
	testkit.NoError(t, err)
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	a, err = net.Dial(network, l.Addr().String())
	testkit.NoError(t, err)
	if b = <-accepted; b == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// What every net.Conn must do, by the tests of golang.org/x/net.
func TestConn(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
				a, b = pair(t, network)
				a, b = Wrap(a), Wrap(b)
				return a, b, func() { _, _ = a.Close(), b.Close() }, nil
			})
		})
	}
}

// Its errors are those of package net: pgx and net/http tell them apart.
func TestErrorsAreThoseOfNet(t *testing.T) {
	t.Parallel()
	testkit.Each(t, map[string]func(t testing.TB, a, b net.Conn) error{
		"closed by the peer": func(t testing.TB, a, b net.Conn) error {
			testkit.NoError(t, b.Close())
			return read(a)
		},
		"reset": func(t testing.TB, a, b net.Conn) error {
			testkit.NoError(t, b.(*net.TCPConn).SetLinger(0))
			testkit.NoError(t, b.Close())
			return read(a)
		},
		"written after a reset": func(t testing.TB, a, b net.Conn) error {
			testkit.NoError(t, b.(*net.TCPConn).SetLinger(0))
			testkit.NoError(t, b.Close())
			_ = read(a)
			_, err := a.Write([]byte("x"))
			return err
		},
		"too late to read": func(t testing.TB, a, _ net.Conn) error {
			testkit.NoError(t, a.SetDeadline(time.Now().Add(-time.Second)))
			return read(a)
		},
		"too late to write": func(t testing.TB, a, _ net.Conn) error {
			testkit.NoError(t, a.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
			_, err := a.Write(make([]byte, 64<<20))
			return err
		},
		"closed here": func(t testing.TB, a, _ net.Conn) error {
			testkit.NoError(t, a.Close())
			return read(a)
		},
		"nothing to read into": func(_ testing.TB, a, _ net.Conn) error {
			_, err := a.Read(nil)
			return err
		},
	}, func(t *testing.T, name string, fail func(t testing.TB, a, b net.Conn) error) {
		plain, peer := pair(t, "tcp")
		want := fail(t, plain, peer)
		wrapped, peer := pair(t, "tcp")
		got := fail(t, Wrap(wrapped), peer)
		testkit.Equal(t, kind(got), kind(want), name, got, "where package net has", want)
	})
}

func read(conn net.Conn) error {
	_, err := conn.Read(make([]byte, 10))
	return err
}

// kind says what programs ask an error.
func kind(err error) string {
	var op *net.OpError
	var timeout net.Error
	is := func(target error) bool { return errors.Is(err, target) }
	return fmt.Sprint(err == nil, err == io.EOF, errors.As(err, &op), errors.As(err, &timeout) && timeout.Timeout(),
		is(os.ErrDeadlineExceeded), is(net.ErrClosed), is(syscall.ECONNRESET), is(syscall.EPIPE))
}

// A connection that is no socket of package net stays as it is, such as a proxy's or TLS.
func TestWrapLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if Wrap(a) != a {
		t.Error("another connection")
	}
}
