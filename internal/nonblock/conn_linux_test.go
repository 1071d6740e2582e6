package nonblock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"auditstream/internal/testkit"
)

// Writev takes what the socket takes, and never waits.
func TestWritev(t *testing.T) {
	t.Parallel()
	a, b := pair(t, "tcp")
	raw, err := a.(*net.TCPConn).SyscallConn()
	testkit.NoError(t, err)
	parts := [][]byte{nil, []byte("one, "), {}, []byte("two, "), []byte("three, "), []byte("four, "), []byte("five")}
	n, err := Writev(raw, parts)
	testkit.NoError(t, err)
	testkit.Equal(t, n, len(bytes.Join(parts, nil)), "bytes written")
	got := make([]byte, n)
	_, err = io.ReadFull(b, got)
	testkit.NoError(t, err)
	testkit.Equal(t, string(got), "one, two, three, four, five", "what arrived")

	sent := 0
	for n = 1; n > 0; sent += n {
		n, err = Writev(raw, [][]byte{make([]byte, 1<<20)})
		testkit.NoError(t, err)
	}
	if sent == 0 {
		t.Error("nothing was written")
	}
	for _, nothing := range [][][]byte{nil, {nil}, {{}, {}}} {
		n, err = Writev(raw, nothing)
		testkit.Equal(t, fmt.Sprint(n, err), "0 <nil>", "nothing to write")
	}
	testkit.NoError(t, a.Close())
	if _, err = Writev(raw, parts); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A goroutine whose sockets never keep it waiting lets the monitor thread see to the others.
func TestEachSoManyCallsOneIsOrdinary(t *testing.T) {
	a, b := pair(t, "tcp")
	raw, err := a.(*net.TCPConn).SyscallConn()
	testkit.NoError(t, err)
	wrapped, peer := Wrap(a), Wrap(b)
	sinceWait.Store(0)
	_, err = wrapped.Write([]byte("x"))
	testkit.NoError(t, err)
	_, err = Writev(raw, [][]byte{[]byte("y")})
	testkit.NoError(t, err)
	testkit.Equal(t, sinceWait.Load(), 2, "calls counted")
	_, err = io.ReadFull(peer, make([]byte, 2))
	testkit.NoError(t, err)
	sinceWait.Store(rawCalls - 3)
	testkit.Equal(t, fmt.Sprint(ordinary(), ordinary(), ordinary(), ordinary()), "false false true false", "ordinary calls")
	read := make(chan error)
	go func() {
		_, err := peer.Read(make([]byte, 1))
		read <- err
	}()
	testkit.Eventually(t, "the read waits", func() bool { return sinceWait.Load() == 0 })
	testkit.NoError(t, a.Close())
	testkit.Equal(t, <-read, io.EOF)
}
