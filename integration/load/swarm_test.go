package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"

	"golang.org/x/sys/unix"
)

// A swarm is thousands of clients that come back by themselves, as EventSource does. They are bare sockets, polled by a
// few goroutines: one goroutine each, as net/http's client takes, would cost the tests more than the server.
type swarm struct {
	addr    unix.SockaddrInet4
	request func(id string) string
	shards  []*shard
	stopped chan struct{}
	wg      sync.WaitGroup
}

// shard is the part of a swarm that one goroutine serves.
type shard struct {
	swarm *swarm

	mu      sync.Mutex
	sockets []*socket
}

// socket is one client. Guarded by its shard's mu.
type socket struct {
	id       string
	fd       int // -1: not connected
	waiting  bool
	again    time.Time // when to connect next
	rest     []byte    // of an event that has not come whole
	connects int       // connections that were answered
	last     int       // newest state on this connection; -1: none yet
	newest   int       // newest state ever
	refused  int       // answers that asked to come back later
	fault    string    // what must not happen
}

const swarmShards = 4

// newSwarm connects n clients at once, spread over the audits, and reconnects them until the end of the test.
func newSwarm(t testing.TB, i *harness.Instance, n int, ids []string) *swarm {
	t.Helper()
	return newSwarmOf(t, i, harness.AliceToken(t), n, ids)
}

// newSwarmOf is newSwarm for the owner of a token.
func newSwarmOf(t testing.TB, i *harness.Instance, token string, n int, ids []string) *swarm {
	t.Helper()
	host := i.URL[len("http://"):]
	s := &swarm{stopped: make(chan struct{}), addr: loopback(t, host)}
	s.request = func(id string) string {
		return "GET /api/v1/sse/audits/" + id + "/progress HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	}
	for range swarmShards {
		s.shards = append(s.shards, &shard{swarm: s})
	}
	for k := range n {
		sh := s.shards[k%swarmShards]
		sh.sockets = append(sh.sockets, &socket{id: ids[k%len(ids)], fd: -1, last: -1})
	}
	for _, sh := range s.shards {
		s.wg.Go(sh.run)
	}
	t.Cleanup(func() {
		s.leave()
		harness.Equal(t, s.fault(), "", "fault")
	})
	return s
}

func loopback(t testing.TB, host string) unix.SockaddrInet4 {
	t.Helper()
	_, port, _ := bytes.Cut([]byte(host), []byte("127.0.0.1:"))
	n, err := strconv.Atoi(string(port))
	if err != nil {
		t.Fatalf("address %s: %v", host, err)
	}
	return unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}
}

// leave ends all connections. Leaving twice is once.
func (s *swarm) leave() {
	select {
	case <-s.stopped:
	default:
		close(s.stopped)
	}
	s.wg.Wait()
}

// count counts the clients that satisfy is.
func (s *swarm) count(is func(*socket) bool) (n int) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		for _, c := range sh.sockets {
			if is(c) {
				n++
			}
		}
		sh.mu.Unlock()
	}
	return n
}

func (s *swarm) size() int { return s.count(func(*socket) bool { return true }) }

// fault is the first thing that a client saw and should not have.
func (s *swarm) fault() (fault string) {
	s.count(func(c *socket) bool {
		if fault == "" && c.fault != "" {
			fault = "audit " + c.id + ": " + c.fault
		}
		return false
	})
	return fault
}

// served waits until all clients have been shown state n or a later one, on a connection that is at least their nth. Patience is
// for the next of them: how long thousands take depends on what else the machine does.
func (s *swarm) served(t testing.TB, connection, n int) {
	t.Helper()
	size, most := s.size(), 0
	for most < size {
		harness.Eventually(t, func() error {
			got, err := s.shown(t, connection, n)
			if got > most {
				most, err = got, nil
			}
			return err
		})
	}
}

// shown is how many clients have been shown state n on a connection that is at least their nth, and an error that says so.
func (s *swarm) shown(t testing.TB, connection, n int) (got int, err error) {
	t.Helper()
	if fault := s.fault(); fault != "" {
		t.Fatal(fault)
	}
	got = s.count(func(c *socket) bool { return c.connects >= connection && c.last >= n })
	return got, fmt.Errorf("%d of %d clients have been shown state %d on connection %d", got, s.size(), n, connection)
}

// run serves the shard's sockets until the swarm leaves.
func (sh *shard) run() {
	buf := make([]byte, 64<<10)
	polled := make([]unix.PollFd, 0, len(sh.sockets))
	owners := make([]*socket, 0, len(sh.sockets))
	for {
		select {
		case <-sh.swarm.stopped:
			sh.closeAll()
			return
		default:
		}
		polled, owners = polled[:0], owners[:0]
		sh.mu.Lock()
		for _, c := range sh.sockets {
			if c.fd < 0 && !time.Now().Before(c.again) {
				sh.swarm.connect(c)
			}
			if c.fd >= 0 {
				events := int16(unix.POLLIN)
				if c.waiting {
					events = unix.POLLOUT
				}
				polled = append(polled, unix.PollFd{Fd: int32(c.fd), Events: events})
				owners = append(owners, c)
			}
		}
		sh.mu.Unlock()
		if _, err := unix.Poll(polled, 20); err != nil && !errors.Is(err, unix.EINTR) {
			panic(err) // a mistake of this file's
		}
		sh.mu.Lock()
		for k, p := range polled {
			if p.Revents != 0 {
				sh.swarm.ready(owners[k], buf)
			}
		}
		sh.mu.Unlock()
	}
}

func (s *swarm) connect(c *socket) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		c.fault = "socket: " + err.Error()
		c.again = time.Now().Add(time.Second)
		return
	}
	unix.CloseOnExec(fd)
	c.fd, c.waiting, c.last, c.rest = fd, true, -1, nil
	if err := unix.SetNonblock(fd, true); err != nil {
		c.fault = err.Error()
	}
	addr := s.addr // Connect writes to it
	if err := unix.Connect(fd, &addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		c.disconnect()
	}
}

// disconnect comes back soon, and without a pause that would spread the clients out.
func (c *socket) disconnect() {
	_ = unix.Close(c.fd) // what it was good for is over
	c.fd, c.last, c.rest = -1, -1, nil
	c.again = time.Now().Add(50 * time.Millisecond)
}

func (s *swarm) ready(c *socket, buf []byte) {
	if c.waiting {
		c.waiting = false
		if failed, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || failed != 0 {
			c.disconnect() // nobody listens yet
			return
		}
		request := s.request(c.id) // far smaller than any socket buffer
		if n, err := unix.Write(c.fd, []byte(request)); err != nil || n != len(request) {
			c.disconnect()
		}
		return
	}
	n, err := unix.Read(c.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case err != nil, n == 0:
		c.disconnect()
	default:
		c.take(buf[:n])
	}
}

// take reads events out of the chunked answer: each is one chunk, which ends with the only blank line in it.
func (c *socket) take(data []byte) {
	if len(c.rest) > 0 {
		data = append(c.rest, data...)
	}
	for {
		block, rest, whole := bytes.Cut(data, []byte("\n\n"))
		if !whole {
			break
		}
		c.block(block)
		data = rest
	}
	c.rest = nil
	if string(bytes.TrimPrefix(data, []byte("\r\n"))) == "0\r\n\r\n" {
		c.disconnect() // the answer has ended
		return
	}
	if len(data) > 2 { // more than the end of the chunk
		c.rest = bytes.Clone(data)
	}
}

func (c *socket) block(block []byte) {
	if bytes.HasPrefix(block, []byte("HTTP/1.1 ")) {
		if !bytes.HasPrefix(block, []byte("HTTP/1.1 200 ")) {
			c.fault = "answer " + string(block)
		}
		c.connects++
	}
	if bytes.Contains(block, []byte(`{"error":"`)) {
		c.refused++
		return
	}
	_, after, found := bytes.Cut(block, []byte(`"total_pages":`))
	if !found {
		return // a heartbeat, or the time to come back after
	}
	digits := after[:len(after)-len(bytes.TrimLeft(after, "0123456789"))]
	n, err := strconv.Atoi(string(digits))
	switch {
	case err != nil:
		c.fault = "event " + string(block)
	case n < c.newest:
		c.fault = fmt.Sprintf("the state went back from %d to %d", c.newest, n)
	}
	c.last, c.newest = n, max(c.newest, n)
}

func (sh *shard) closeAll() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, c := range sh.sockets {
		if c.fd < 0 {
			continue
		}
		// With a reset, or thousands of ports would stay taken for a minute. A failure leaves a port taken, no more.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		c.disconnect()
	}
}
