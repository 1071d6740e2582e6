//go:build darwin || linux || openbsd

package connpool

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryWritev writes what the socket takes now, which may be nothing. It does not wait.
func tryWritev(raw syscall.RawConn, parts [][]byte) (n int, err error) {
	failed := raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.Writev(int(fd), parts)
			if !errors.Is(err, unix.EINTR) {
				return true
			}
		}
	})
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return max(n, 0), errors.Join(failed, err)
}
