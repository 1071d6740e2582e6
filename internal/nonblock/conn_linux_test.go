package nonblock_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"auditstream/internal/nonblock"
	"auditstream/internal/testkit"
)

// Writev takes what the socket takes, and never waits.
func TestWritev(t *testing.T) {
	t.Parallel()
	a, b := pair(t, "tcp")
	raw, err := a.(*net.TCPConn).SyscallConn()
	testkit.NoError(t, err)
	parts := [][]byte{nil, []byte("one, "), {}, []byte("two, "), []byte("three, "), []byte("four, "), []byte("five")}
	n, err := nonblock.Writev(raw, parts)
	testkit.NoError(t, err)
	testkit.Equal(t, n, len(bytes.Join(parts, nil)), "bytes written")
	got := make([]byte, n)
	_, err = io.ReadFull(b, got)
	testkit.NoError(t, err)
	testkit.Equal(t, string(got), "one, two, three, four, five", "what arrived")

	sent := 0
	for n = 1; n > 0; sent += n {
		n, err = nonblock.Writev(raw, [][]byte{make([]byte, 1<<20)})
		testkit.NoError(t, err)
	}
	if sent == 0 {
		t.Error("nothing was written")
	}
	for _, nothing := range [][][]byte{nil, {nil}, {{}, {}}} {
		n, err = nonblock.Writev(raw, nothing)
		testkit.Equal(t, fmt.Sprint(n, err), "0 <nil>", "nothing to write")
	}
	testkit.NoError(t, a.Close())
	if _, err = nonblock.Writev(raw, parts); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
