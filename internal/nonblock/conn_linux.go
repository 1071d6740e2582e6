package nonblock

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wrap returns a connection that does what conn does, with the same errors. It returns any other connection than a *net.TCPConn or a
// *net.UnixConn as it is.
func Wrap(conn net.Conn) net.Conn {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		if raw, err := conn.(syscall.Conn).SyscallConn(); err == nil { // an error means that it is closed; its first use finds that, too
			return &socket{Conn: conn, raw: raw}
		}
	}
	return conn
}

// socket is a connection whose Read and Write are raw system calls.
type socket struct {
	net.Conn
	raw syscall.RawConn
}

func (s *socket) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	failed := s.raw.Read(func(fd uintptr) bool {
		if n, err = Read(fd, p); err == unix.EAGAIN {
			sinceWait.Store(0)
			return false
		}
		return true
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, s.failure("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) Write(p []byte) (n int, err error) {
	failed := s.raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var more int
			if more, err = call(unix.SYS_WRITE, fd, unsafe.Pointer(&p[n]), len(p)-n); err != nil {
				return err != unix.EAGAIN
			}
			n += more
		}
		return true
	})
	switch {
	case failed != nil:
		return n, failed
	case err != nil:
		return n, s.failure("write", err)
	}
	return n, nil
}

// failure makes an error of a system call into what package net returns.
func (s *socket) failure(name string, err error) error {
	return &net.OpError{Op: name, Net: s.LocalAddr().Network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(name, err)}
}

// Read reads what a socket has received, at most len(p) bytes, of which there is one at least. Without input its error is EAGAIN; at the end it
// returns 0. fd is what a [syscall.RawConn] passes.
func Read(fd uintptr, p []byte) (int, error) {
	return call(unix.SYS_READ, fd, unsafe.Pointer(&p[0]), len(p))
}

// Writev writes as much of all parts as the socket accepts now, which may be nothing, and returns how many bytes. It does not wait.
func Writev(raw syscall.RawConn, parts [][]byte) (n int, err error) {
	vectors := make([]unix.Iovec, 0, 4)
	for _, part := range parts {
		if len(part) > 0 {
			vectors = append(vectors, unix.Iovec{Base: &part[0]})
			vectors[len(vectors)-1].SetLen(len(part))
		}
	}
	if len(vectors) == 0 {
		return 0, nil
	}
	failed := raw.Write(func(fd uintptr) bool {
		n, err = call(unix.SYS_WRITEV, fd, unsafe.Pointer(&vectors[0]), len(vectors))
		return true
	})
	switch {
	case failed != nil:
		return 0, failed
	case err == unix.EAGAIN:
		return 0, nil
	}
	return n, err
}

// rawCalls is how many raw calls are made in a row before an ordinary one, unless a read has to wait, which lets other goroutines run.
// The monitor thread may sleep during raw calls. It is what takes the processor from a goroutine that is busy for long, such as one that reads
// an answer which is always there already, and what looks for input meanwhile: without it other goroutines waited for up to a second.
const rawCalls = 128

var sinceWait atomic.Uint32 // calls since a read had to wait

// ordinary counts a call, and reports whether it is to be an ordinary one.
func ordinary() bool { return sinceWait.Add(1)%rawCalls == 0 }

// call makes a system call again until no signal interrupts it.
func call(trap, fd uintptr, p unsafe.Pointer, n int) (int, error) {
	for {
		var done uintptr
		var errno syscall.Errno
		if ordinary() {
			done, _, errno = syscall.Syscall(trap, fd, uintptr(p), uintptr(n))
		} else {
			done, _, errno = syscall.RawSyscall(trap, fd, uintptr(p), uintptr(n))
		}
		switch errno {
		case 0:
			return int(done), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
