package connpool

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
)

// Task is what a connection is used for. Run is called by one writer at a time, after each call of [Conn.Schedule]; it reports
// whether nothing will be left to do any more, and has called Close or HandBack then. The others note what has happened, and
// neither block nor call the pool but for Schedule.
type Task interface {
	Run() (over bool)
	// Input is told that the client has gone, or, while the connection rests, that it sent something.
	Input()
	// Drain is told that the server is shutting down.
	Drain()
}

// Conn is a connection taken from net/http. Its methods are for the goroutine that has it, the handler and then the writer that
// runs its task, but for Schedule.
type Conn struct {
	pool   *Pool
	task   Task
	key    uint64 // names it to what watches for disconnects
	sock   net.Conn
	raw    syscall.RawConn // nil where the connection is no socket: it is written to and read from by Go's means alone
	input  []byte          // what the client sent after its request and net/http had read
	pooled bool            // the handler has returned

	next *Conn // in the pool's queue, guarded by its lock
}

// Take takes the connection of a request from net/http; nil: it cannot be taken, and net/http goes on. The caller writes the whole
// answer, the head included, calls Begin, and afterwards Serve, unless it has called Close or HandBack.
func (p *Pool) Take(w http.ResponseWriter) *Conn {
	p.expect() // Shutdown knows nothing of the connection from Hijack on
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.forget()
		return nil
	}
	c := &Conn{pool: p, input: unread(buffered.Reader)}
	if again, ok := conn.(*reusedConn); ok {
		c.input = append(c.input, again.input...)
		conn = again.Conn
	}
	if tcp, ok := conn.(*net.TCPConn); ok { // and not what somebody else's listener made of one, whose Write may do more
		c.raw, _ = tcp.SyscallConn() // an error is that it is closed, which the first write finds, too
	}
	c.sock = conn
	return c
}

// unread is a copy of what a reader has buffered, which lets its buffer go.
func unread(r *bufio.Reader) []byte {
	b, err := r.Peek(r.Buffered())
	if err != nil || len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

// Begin has the task told of what happens.
func (c *Conn) Begin(task Task) {
	c.task = task
	c.pool.add(c)
}

// Serve has writers run the task from now on, beginning at once.
func (c *Conn) Serve() {
	if c.raw != nil {
		c.pool.disconnects.watch(c, false)
	} else {
		c.pool.work.Go(c.read)
	}
	c.pooled = true
	c.pool.push(c)
}

// read waits for the end of a client whose connection the kernel cannot be asked about.
func (c *Conn) read() error {
	_, _ = io.Copy(io.Discard, c.sock)
	c.pool.disconnected(c.key)
	return nil
}

// Schedule has a writer run the task. It does not block, may be called from anywhere, and is called again only after that.
func (c *Conn) Schedule() { c.pool.push(c) }

// Write writes all parts. It takes the way without waiting first; while it has to wait, another writer takes this one's place.
func (c *Conn) Write(parts ...[]byte) error {
	n := 0
	if c.raw != nil {
		var err error
		if n, err = tryWritev(c.raw, parts); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	for len(parts) > 0 && n >= len(parts[0]) {
		n, parts = n-len(parts[0]), parts[1:]
	}
	if len(parts) == 0 {
		return nil
	}
	if c.pooled {
		defer c.pool.replace()()
	}
	for _, part := range parts {
		if err := c.pool.cfg.Write(c.sock, part[n:]); err != nil {
			return err
		}
		n = 0
	}
	return nil
}

// Rest has the task told when the client sends its next request. It reports whether it will; the caller hands the connection back
// otherwise.
func (c *Conn) Rest() bool { return c.input == nil && c.pool.disconnects.watch(c, true) }

// HandBack gives the connection to net/http for the next request.
func (c *Conn) HandBack() {
	c.pool.disconnects.unwatch(c)
	c.pool.cfg.Gone(c.sock) // to be counted anew
	if !c.pool.back.hand(&reusedConn{Conn: c.sock, input: c.input}) {
		_ = c.sock.Close()
	}
	c.pool.remove(c)
}

// Close closes the connection.
func (c *Conn) Close() {
	_ = c.sock.Close() // the client may have done it
	c.pool.cfg.Gone(c.sock)
	c.pool.remove(c)
}
