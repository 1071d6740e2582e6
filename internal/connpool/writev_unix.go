//go:build darwin || linux || openbsd

package connpool

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryWritev writes as much as the socket accepts now, which may be nothing, and returns how many bytes. It does not wait.
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
