package bench

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// load is the clients of one load process: bare sockets on one epoll, so that reading costs little of the CPU that the
// server under test needs.
type load struct {
	epoll int

	mu        sync.Mutex
	order     *connectOrder
	clients   []*client
	connected int // clients that have tried to
	answered  int // clients that have read a first event
	began     int64
	wholeAt   int64
	whole     chan struct{} // closed when all are answered, or something went wrong
	samples   []sample
	fault     string
}

// Clients that wait for their first event at a time: fewer than any listen backlog, since a SYN that is dropped is only
// repeated after a second, and would be all that a connect time measures.
const connecting = 1000

const connectPatience = 2 * time.Minute

func runLoad(in io.Reader, out io.Writer) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	l := &load{epoll: epoll}
	go l.poll()
	orders, replies := gob.NewDecoder(in), gob.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil // the measuring process has gone
			}
			return err
		}
		if err := replies.Encode(l.obey(o)); err != nil {
			return err
		}
	}
}

func (l *load) obey(o order) reply {
	if o.Connect != nil {
		l.connect(o.Connect)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := reply{Fault: l.fault, Began: l.began, Whole: l.wholeAt}
	for _, c := range l.clients {
		r.Sum += int64(c.last)
	}
	if o.Take {
		r.Samples, l.samples = l.samples, nil
	}
	if o.Leave {
		l.leave()
	}
	return r
}

// connect returns when all clients have read a first event.
func (l *load) connect(o *connectOrder) {
	l.mu.Lock()
	whole := make(chan struct{})
	l.order, l.whole, l.fault, l.began, l.wholeAt = o, whole, "", now(), 0
	l.clients, l.samples = make([]*client, 0, len(o.Clients)), nil
	l.connected, l.answered = 0, 0
	l.mu.Unlock()
	select {
	case <-whole:
	case <-time.After(connectPatience):
		l.mu.Lock()
		l.fail("only %d of %d clients have read a first event", l.answered, len(o.Clients))
		l.mu.Unlock()
	}
}

// poll serves the sockets until the process ends.
func (l *load) poll() {
	events := make([]unix.EpollEvent, 1024)
	buf := make([]byte, 64<<10)
	for {
		l.mu.Lock()
		l.startSome()
		l.mu.Unlock()
		n, err := unix.EpollWait(l.epoll, events, 10)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err) // a mistake of this file's
		}
		l.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			if k := int(e.Fd); k < len(l.clients) && l.clients[k].fd >= 0 {
				l.ready(k, buf)
			}
		}
		l.mu.Unlock()
	}
}

func (l *load) startSome() {
	for l.order != nil && l.fault == "" && l.connected < len(l.order.Clients) && l.connected-l.answered < connecting {
		l.start(l.connected)
		l.connected++
	}
}

func (l *load) start(k int) {
	c := &client{audit: l.order.Clients[k], last: -1, waiting: true, fd: -1}
	l.clients = append(l.clients, c)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.fail("socket %d: %v", k, err)
		return
	}
	c.fd = fd
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), // the port is chosen with the destination
		unix.Bind(fd, &unix.SockaddrInet4{Addr: l.order.Source}),
		unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(k)}))
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: l.order.Port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		l.fail("connect client %d: %v", k, err)
	}
}

func (l *load) ready(k int, buf []byte) {
	c := l.clients[k]
	if c.waiting {
		c.waiting = false
		request := l.order.Requests[c.audit] // far smaller than any socket buffer
		_, err := unix.Write(c.fd, request)
		if err == nil {
			err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(k)})
		}
		if err != nil {
			l.fail("request of client %d: %v", k, err)
		}
		return
	}
	n, err := unix.Read(c.fd, buf)
	at := now()
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case err != nil:
		l.end(c, "read of client %d: %v", k, err)
	case n == 0:
		l.end(c, "the stream of client %d has ended; it began with %q", k, c.head)
	default:
		for _, state := range c.take(buf[:n]) {
			l.shown(c, state, at)
		}
	}
}

func (l *load) shown(c *client, state int32, at int64) {
	if state < c.last {
		l.fail("audit %d went back from %d to %d", c.audit, c.last, state)
	}
	l.samples = append(l.samples, sample{c.audit, c.last, state, at})
	if c.last < 0 {
		if l.answered++; l.answered == len(l.order.Clients) {
			l.wholeAt = at
			close(l.whole)
		}
	}
	c.last = state
}

// fail keeps the first fault.
func (l *load) fail(format string, args ...any) {
	if l.fault != "" {
		return
	}
	l.fault = fmt.Sprintf(format, args...)
	if l.answered < len(l.order.Clients) {
		close(l.whole)
	}
}

// end takes a broken connection off, or epoll would report it for ever.
func (l *load) end(c *client, format string, args ...any) {
	_ = unix.Close(c.fd) // what it was good for is over
	c.fd = -1
	l.fail(format, args...)
}

// leave ends all connections with a reset, or thousands of ports would stay taken for a minute.
func (l *load) leave() {
	for _, c := range l.clients {
		if c.fd < 0 {
			continue
		}
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // a failure leaves a port taken
		_ = unix.Close(c.fd)
		c.fd = -1
	}
	l.clients, l.samples, l.order = nil, nil, nil
}
