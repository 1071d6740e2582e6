package connpool

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// disconnects learns from the kernel, by epoll(7), which clients have disconnected; net/http has a reading goroutine for each client
// instead. It reads nothing: what a client sends stays in the kernel's buffer, which bounds it. A client that closes only its side has
// disconnected, too, as for net/http. A nil disconnects watches nothing; then heartbeats find the clients that have disconnected.
type disconnects struct {
	owner *Pool
	fd    int
	file  *os.File // of fd: the runtime waits for it like for a socket, without a thread
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

// watch begins to watch a connection for a disconnect; with input, it adds input to a connection that is watched. It reports whether that
// worked.
func (d *disconnects) watch(c *Conn, input bool) bool {
	if d == nil {
		return false
	}
	// Edge-triggered: each event comes once. A change of the events reports again what is already there.
	op, events := unix.EPOLL_CTL_ADD, uint32(unix.EPOLLRDHUP|unix.EPOLLET)
	if input {
		op, events = unix.EPOLL_CTL_MOD, events|unix.EPOLLIN
	}
	// The key and not the descriptor, which another connection may have when the event is read.
	return d.control(c.rawConn, op, &unix.EpollEvent{Events: events, Fd: int32(c.key), Pad: int32(c.key >> 32)}) == nil
}

// unwatch ends the watch of a connection that stays open. To close a connection has the same effect, because there is no copy of its
// descriptor.
func (d *disconnects) unwatch(c *Conn) {
	if d != nil {
		_ = d.control(c.rawConn, unix.EPOLL_CTL_DEL, nil) // an error means that watch had failed
	}
}

func (d *disconnects) control(raw syscall.RawConn, op int, event *unix.EpollEvent) (err error) {
	failed := raw.Control(func(fd uintptr) { err = unix.EpollCtl(d.fd, op, int(fd), event) })
	return errors.Join(failed, err)
}

// run passes events to the owner until close.
func (d *disconnects) run() {
	if d == nil {
		return
	}
	raw, err := d.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	events := make([]unix.EpollEvent, 128)
	_ = raw.Read(func(fd uintptr) bool { // its error says that the file was closed
		for {
			n, err := unix.EpollWait(int(fd), events, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 {
				return false
			}
			for _, e := range events[:n] {
				d.owner.noteInput(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
			}
		}
	})
}

// close ends run. Call it after the last watch.
func (d *disconnects) close() {
	if d != nil {
		_ = d.file.Close()
	}
}
