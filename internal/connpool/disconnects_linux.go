package connpool

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// disconnects learns from the kernel (epoll(7)) that clients have gone, where net/http has a goroutine that reads for each. It
// reads nothing: what a client sends stays in the kernel's buffer, which bounds it. A client that ends its side alone has
// gone too, as for net/http. A nil disconnects watches nothing; heartbeats then find who has gone.
type disconnects struct {
	owner *Pool
	fd    int
	file  *os.File // of fd: the runtime waits for it as it does for any socket, without a thread
}

func newDisconnects(owner *Pool) (*disconnects, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make epoll's descriptor non-blocking: %w", err), unix.Close(fd))
	}
	return &disconnects{owner: owner, fd: fd, file: os.NewFile(uintptr(fd), "epoll")}, nil
}

// watch begins to watch a stream; for input as well when it is the next request that is waited for. It reports whether it does.
func (d *disconnects) watch(c *Conn, input bool) bool {
	if d == nil {
		return false
	}
	// Edge-triggered: each is told once. Changing what is asked for tells again what is there.
	op, events := unix.EPOLL_CTL_ADD, uint32(unix.EPOLLRDHUP|unix.EPOLLET)
	if input {
		op, events = unix.EPOLL_CTL_MOD, events|unix.EPOLLIN
	}
	// The key and not the descriptor: its number may be another connection's by the time that the event is read.
	return d.control(c.raw, op, &unix.EpollEvent{Events: events, Fd: int32(c.key), Pad: int32(c.key >> 32)}) == nil
}

// unwatch is for connections that live on. Closing one has the same effect, as there are no copies of its descriptor.
func (d *disconnects) unwatch(c *Conn) {
	if d != nil {
		_ = d.control(c.raw, unix.EPOLL_CTL_DEL, nil) // not watched, when watch had failed
	}
}

func (d *disconnects) control(raw syscall.RawConn, op int, event *unix.EpollEvent) (err error) {
	failed := raw.Control(func(fd uintptr) { err = unix.EpollCtl(d.fd, op, int(fd), event) })
	return errors.Join(failed, err)
}

// run tells the owner who has disconnected, until close.
func (d *disconnects) run() {
	if d == nil {
		return
	}
	raw, err := d.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	events := make([]unix.EpollEvent, 128)
	_ = raw.Read(func(fd uintptr) bool { // ends with the error that the file is closed
		for {
			n, err := unix.EpollWait(int(fd), events, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 {
				return false
			}
			for _, e := range events[:n] {
				d.owner.disconnected(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
			}
		}
	})
}

// close must come after the last watch.
func (d *disconnects) close() {
	if d != nil {
		_ = d.file.Close()
	}
}
