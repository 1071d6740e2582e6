package server

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unackedTimeout is how long sent data may go unacknowledged before the kernel gives up a connection, in milliseconds. By
// default a peer that has vanished without a word holds its socket for a quarter of an hour: keep-alive probes are not
// sent while data is in flight.
const unackedTimeout = 30_000

// controlSocket sets options that accepted connections inherit (tcp(7): TCP_USER_TIMEOUT).
func controlSocket(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedTimeout)
	})
	if err != nil {
		return err
	}
	return failed
}
