package server

import (
	"net"
	"testing"

	"auditstream/internal/testkit"

	"golang.org/x/sys/unix"
)

// Accepted connections inherit the options of the listening socket.
func TestConnectionsInheritSocketOptions(t *testing.T) {
	t.Parallel()
	l, err := listen(t.Context(), "HTTP_ADDR", "127.0.0.1:0")
	testkit.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	testkit.NoError(t, err)
	defer client.Close()
	conn, err := l.Accept()
	testkit.NoError(t, err)
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	testkit.NoError(t, err)
	for name, option := range map[string]struct{ level, option, want int }{
		"TCP_USER_TIMEOUT":  {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedTimeout},
		"TCP_NOTSENT_LOWAT": {unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent},
		"SO_KEEPALIVE":      {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":      {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveIdle},
		"TCP_KEEPINTVL":     {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveInterval},
		"TCP_KEEPCNT":       {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount},
		"TCP_NODELAY":       {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), option.level, option.option) }); err != nil || failed != nil {
			t.Fatal(name, err, failed)
		}
		if got != option.want {
			t.Errorf("%s is %d, want %d", name, got, option.want)
		}
	}
}
