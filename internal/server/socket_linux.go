package server

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// unackedTimeout is how long sent data may stay unacknowledged before the kernel closes a connection, in milliseconds. By default a
	// vanished peer keeps its socket for a quarter of an hour, because no keep-alive probes are sent while data is in flight.
	unackedTimeout = 30_000
	// maxUnsent limits the data that the kernel buffers before it can send it, in bytes. The default is megabytes for each client that hardly
	// reads: hours of old states, all written within their deadlines. With this limit a write blocks, newer states replace those that wait,
	// and the write deadline finds the client.
	maxUnsent = 16 << 10
	// Go's defaults for keep-alive, in seconds. They are set once on the listener: Go would make three system calls for each connection.
	keepAliveIdle, keepAliveInterval, keepAliveCount = 15, 15, 9
)

func listenConfig() *net.ListenConfig {
	return &net.ListenConfig{Control: controlSocket, KeepAlive: -1} // -1: connections inherit the listener's
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
