package pgnotify

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/testkit"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// A partition leaves no socket behind for the two hours that are Linux's default.
func TestListenConfigSetsKeepAlive(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	from, err := pgx.ParseConfig("postgres://127.0.0.1/x")
	testkit.NoError(t, err)
	var plain net.Conn
	dial := from.DialFunc
	from.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		plain, err = dial(ctx, network, address)
		return plain, err
	}
	conn, err := listenConfig(from, "auditstream listener").DialFunc(t.Context(), "tcp", l.Addr().String())
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	raw, err := plain.(syscall.Conn).SyscallConn()
	testkit.NoError(t, err)
	for name, option := range map[string]struct {
		number int
		want   time.Duration
	}{"idle": {unix.TCP_KEEPIDLE, keepAlive.Idle}, "interval": {unix.TCP_KEEPINTVL, keepAlive.Interval}} {
		var got int
		testkit.NoError(t, raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option.number) }))
		testkit.NoError(t, err)
		testkit.Equal(t, time.Duration(got)*time.Second, option.want, name)
	}
}
