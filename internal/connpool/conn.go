package connpool

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"auditstream/internal/nonblock"
)

// Task is the work on one connection, such as a stream. Input and Drain only note what has happened: they must not block, and of the pool
// they may only call Schedule.
type Task interface {
	// Run does what is due. One writer at a time calls it, after each call of [Conn.Schedule]. Its last work is to call Close or
	// ReturnToHTTP, or Begin with another task, after which it does nothing with the connection.
	Run()
	// Input says that the client has disconnected or, after AwaitRequest, that it may have sent something.
	Input()
	// Drain says that the server is shutting down.
	Drain()
}

// Conn is a connection that net/http does not serve. Only its current goroutine may call its methods: the handler, and after Serve the writer
// that runs its task. Schedule may be called from anywhere.
type Conn struct {
	pool    *Pool
	task    Task
	key     uint64 // its number in epoll's events
	sock    net.Conn
	rawConn syscall.RawConn // nil when the connection is not a *net.TCPConn: then only Go's Read and Write are used
	input   []byte          // what was read beyond the request
	served  bool            // Serve was called, so only writers use it
	watched bool            // epoll watches it
	noted   bool            // Input was called; Pool.mu guards it

	next *Conn // the next in the pool's queue; queue guards it
}

// Hijack takes the connection of a request from net/http. It returns nil when the connection cannot be taken; net/http then keeps it. The
// caller writes the whole response, including the head. It calls Begin, and then one of Serve, Close and ReturnToHTTP.
func (p *Pool) Hijack(w http.ResponseWriter) *Conn {
	p.expect() // from Hijack on, net/http's Shutdown does not wait for the connection, so End must
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.unexpect()
		return nil
	}
	if a, ok := conn.(adopted); ok {
		p.unexpect()
		return a.conn
	}
	c := &Conn{pool: p, input: bufferedInput(buffered.Reader)}
	if again, ok := conn.(*readConn); ok {
		c.input = append(c.input, again.input...)
		conn = again.Conn
	}
	if tcp, ok := conn.(*net.TCPConn); ok { // only this type: the Write of a wrapper, made by another listener, may do more
		c.rawConn, _ = tcp.SyscallConn() // an error means that it is closed; the first write finds that, too
	}
	c.sock = conn
	return c
}

// Adopt takes a connection that net/http has not had, whose request was read. Its handler may take it by way of [Conn.Hijack], and then calls
// Begin as after [Pool.Hijack]; otherwise the caller calls Close or ReturnToHTTP. Until Begin, task is told when the client disconnects.
func (p *Pool) Adopt(sock *net.TCPConn, raw syscall.RawConn, task Task) *Conn {
	c := &Conn{pool: p, sock: sock, rawConn: raw, task: task}
	p.expect()
	p.add(c)
	c.watch()
	return c
}

// Hijack is the method of an [http.Hijacker] for the handler of an adopted connection's request: [Pool.Hijack] then returns c.
func (c *Conn) Hijack() (net.Conn, *bufio.ReadWriter, error) { return adopted{c.sock, c}, nil, nil }

type adopted struct {
	net.Conn
	conn *Conn
}

// bufferedInput returns a copy of what a reader has buffered, so that the reader's buffer can be freed.
func bufferedInput(r *bufio.Reader) []byte {
	b, err := r.Peek(r.Buffered())
	if err != nil || len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

// Begin sets the task, whose Input and Drain may be called from now on. In place of an earlier task it is told at once what that was told.
func (c *Conn) Begin(task Task) {
	if c.key == 0 {
		c.task = task
		c.pool.add(c)
	} else {
		c.pool.setTask(c, task)
	}
}

// Serve leaves the connection to the writers, which run the task at once and after each Schedule. The handler must not use it any more.
func (c *Conn) Serve() {
	if c.rawConn != nil {
		c.watch()
	} else {
		c.pool.goroutines.Go(c.readUntilEnd)
	}
	c.served = true
	c.pool.push(c)
}

// watch makes epoll watch the connection, and reports whether it does.
func (c *Conn) watch() bool {
	c.watched = c.watched || c.rawConn != nil && c.pool.disconnects.watch(c, false)
	return c.watched
}

// readUntilEnd waits until the client disconnects, for a connection that epoll cannot watch.
func (c *Conn) readUntilEnd() error {
	_, _ = io.Copy(io.Discard, c.sock)
	c.pool.noteInput(c.key)
	return nil
}

// Schedule makes a writer run the task. It does not block. Do not call it again before that run has begun. Safe for concurrent use.
func (c *Conn) Schedule() { c.pool.push(c) }

// Write writes all parts. It first writes what the socket accepts without waiting. If more is left, it waits for the client in Config.Write,
// and meanwhile another writer takes this one's place.
func (c *Conn) Write(parts ...[]byte) error {
	n := 0
	if c.rawConn != nil {
		var err error
		if n, err = nonblock.Writev(c.rawConn, parts); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	for len(parts) > 0 && n >= len(parts[0]) {
		n, parts = n-len(parts[0]), parts[1:]
	}
	if len(parts) == 0 {
		return nil
	}
	if c.served {
		defer c.pool.substitute()()
	}
	for _, part := range parts {
		if err := c.pool.cfg.Write(c.sock, part[n:]); err != nil {
			return err
		}
		n = 0
	}
	return nil
}

// AwaitRequest waits for the next request: from now on, the task's Input is also called when the client sends something. It returns false
// when that cannot be, or when input is already there; the caller then calls ReturnToHTTP.
func (c *Conn) AwaitRequest() bool {
	return c.input == nil && c.watch() && c.pool.disconnects.watch(c, true)
}

// ReturnToHTTP gives the connection to net/http for the next request, which must come within its ReadHeaderTimeout.
func (c *Conn) ReturnToHTTP() {
	c.pool.disconnects.unwatch(c)
	c.pool.GiveToHTTP(c.sock, c.input)
	c.pool.remove(c)
}

// Close closes the connection.
func (c *Conn) Close() {
	_ = c.sock.Close() // an error means that it is closed already
	c.pool.cfg.Gone(c.sock)
	c.pool.remove(c)
}
