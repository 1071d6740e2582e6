package server

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// unackedTimeout is how long sent data may go unacknowledged before the kernel gives up a connection, in milliseconds.
	// By default a peer that has vanished without a word holds its socket for a quarter of an hour: keep-alive probes are
	// not sent while data is in flight.
	unackedTimeout = 30_000
	// maxUnsent bounds what the kernel takes from us before it can send it, in bytes. By default that is megabytes for each
	// client that hardly reads: hours of old states, written within their deadline. Beyond it a write waits, the newest
	// state replaces those that wait behind it, and the deadline finds the client.
	maxUnsent = 16 << 10
	// Keep-alive as Go has it by default, in seconds, but set once: Go would set each of the three for each connection.
	keepAliveIdle, keepAliveInterval, keepAliveCount = 15, 15, 9
)

func listenConfig() *net.ListenConfig {
	return &net.ListenConfig{Control: controlSocket, KeepAlive: -1} // for the connections: inherited
}

// controlSocket sets options that accepted connections inherit (tcp(7): TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, SO_KEEPALIVE).
func controlSocket(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedTimeout),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveIdle),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveInterval),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount),
		)
	})
	if err != nil {
		return err
	}
	return failed
}
