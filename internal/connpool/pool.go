package connpool

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Config configures a Pool. Write and Logger are required.
type Config struct {
	// Addr is the address that the listener returned by Listener reports. With nil, nothing may be given to net/http.
	Addr net.Addr
	// Gone is called for each connection that the pool closes. nil means no function.
	Gone func(net.Conn)
	// Write writes what a client does not accept at once. It may wait for the client, for a bounded time.
	Write func(net.Conn, []byte) error
	// Logger receives a warning when epoll does not work.
	Logger *slog.Logger
}

// Pool holds the connections that net/http does not serve and the writers that run their tasks. Safe for concurrent use.
type Pool struct {
	cfg         Config
	disconnects *disconnects
	returned    *returnListener
	goroutines  errgroup.Group
	writers     int // how many Run starts

	mu        sync.Mutex
	open      map[uint64]*Conn
	expected  int // connections between expect and add
	lastKey   uint64
	draining  bool
	closedOne sync.Cond // open or expected has become smaller

	queue      sync.Mutex // guards the fields below
	ready      sync.Cond  // the queue is not empty, or surplus is not 0
	head, tail *Conn
	queued     int
	surplus    int // how many writers should exit
}

// New returns a Pool. The caller must call Run or Close.
func New(cfg Config) *Pool {
	if cfg.Gone == nil {
		cfg.Gone = func(net.Conn) {}
	}
	p := &Pool{cfg: cfg, writers: runtime.GOMAXPROCS(0), open: make(map[uint64]*Conn), returned: newReturnListener(cfg.Addr)}
	p.closedOne.L, p.ready.L = &p.mu, &p.queue
	var err error
	if p.disconnects, err = newDisconnects(p); err != nil {
		cfg.Logger.Warn("epoll does not work: only heartbeats find clients that have disconnected", "error", err)
	}
	return p
}

// Listener returns the listener on which net/http accepts the connections that it is given.
func (p *Pool) Listener() net.Listener { return p.returned }

// Close frees a pool for which Run was not called.
func (p *Pool) Close() { p.disconnects.close() }

// Run runs the writers until End has been called, and returns when all of its goroutines have ended.
func (p *Pool) Run() error {
	for range p.writers {
		p.goroutines.Go(p.runWriter)
	}
	p.disconnects.run()
	return p.goroutines.Wait()
}

// expect makes End wait for a connection that add will follow.
func (p *Pool) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected++
}

// unexpect takes back one expect.
func (p *Pool) unexpect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected--
	p.closedOne.Broadcast()
}

// add adds a connection after expect.
func (p *Pool) add(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected--
	p.lastKey++
	c.key = p.lastKey
	p.open[c.key] = c
	if p.draining {
		c.task.Drain()
	}
}

// setTask sets the task of a connection that was added with another, and tells it what the other was told.
func (p *Pool) setTask(c *Conn, task Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.task = task
	if c.noted {
		task.Input()
	}
	if p.draining {
		task.Drain()
	}
}

func (p *Pool) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c.key)
	p.closedOne.Broadcast()
}

// noteInput calls Input of a connection's task. It takes the key, because another connection may have the same descriptor by now.
func (p *Pool) noteInput(key uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.open[key]; c != nil {
		c.noted = true
		c.task.Input()
	}
}

// Len returns the number of taken connections.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Drain calls Drain of every task, also of those that begin later.
func (p *Pool) Drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for _, c := range p.open {
		c.task.Drain()
	}
}

// End waits until no connection is left, or closes those that are left when ctx ends. Then Run returns.
func (p *Pool) End(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.open {
			_ = c.sock.Close() // its writer sees the error
		}
	})
	defer stop()
	p.mu.Lock()
	for len(p.open)+p.expected > 0 {
		p.closedOne.Wait()
	}
	p.mu.Unlock()
	p.disconnects.close()
	p.queue.Lock()
	defer p.queue.Unlock()
	p.surplus += p.writers
	p.ready.Broadcast()
}

// runWriter is one writer: it runs one task after the other.
func (p *Pool) runWriter() error {
	for {
		c := p.pop()
		if c == nil {
			return nil
		}
		c.task.Run()
	}
}

// tasksPerWriter is how many queued tasks wake one more writer. To wake one on another processor costs as much as several writes, so one
// writer alone writes a state that few watch.
const tasksPerWriter = 32

// push queues a connection. It wakes a writer for the first of each tasksPerWriter; a writer continues until the queue is empty.
func (p *Pool) push(c *Conn) {
	p.queue.Lock()
	defer p.queue.Unlock()
	if p.tail == nil {
		p.head = c
	} else {
		p.tail.next = c
	}
	p.tail = c
	if p.queued++; p.queued%tasksPerWriter == 1 {
		p.ready.Signal()
	}
}

// pop waits for a connection whose task has something due. It returns nil when the writer should exit.
func (p *Pool) pop() *Conn {
	p.queue.Lock()
	defer p.queue.Unlock()
	for p.head == nil && p.surplus == 0 {
		p.ready.Wait()
	}
	if p.surplus > 0 {
		p.surplus--
		return nil
	}
	c := p.head
	p.queued--
	if p.head, c.next = c.next, nil; p.head == nil {
		p.tail = nil
	}
	return c
}

// substitute starts a writer in place of the caller, which must wait for its client. The caller calls back after the wait, and then one
// writer exits.
func (p *Pool) substitute() (back func()) {
	p.goroutines.Go(p.runWriter)
	return func() {
		p.queue.Lock()
		defer p.queue.Unlock()
		p.surplus++
		p.ready.Signal()
	}
}
