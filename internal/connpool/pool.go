// Package connpool serves connections taken from net/http without a goroutine and buffers for each: what happens to one is noted by
// its [Task], and one of a few writers sees to it.
//
// The rule that keeps it right: a writer never waits for a client; while it must, another takes its place. Shutdown, which
// net/http's does not do for connections that it no longer knows, is Drain and then End.
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
	// Addr is what the listener of Listener is said to listen on. Nil: HandBack is not called.
	Addr net.Addr
	// Gone is told of each connection that net/http was to forget: it is closed, or net/http's again, as a new one. Nil: nobody is.
	Gone func(net.Conn)
	// Write writes what a client does not take at once. It bounds the time.
	Write func(net.Conn, []byte) error
	// Logger is told of what the system does not offer.
	Logger *slog.Logger
}

// Pool holds the connections taken from net/http and the writers that run their tasks. Safe for concurrent use.
type Pool struct {
	cfg         Config
	disconnects *disconnects
	back        *backListener
	work        errgroup.Group
	writers     int // that run starts

	mu       sync.Mutex
	open     map[uint64]*Conn
	expected int // between expect and add
	keys     uint64
	draining bool
	gone     sync.Cond // one of open or expected is

	queue      sync.Mutex
	ready      sync.Cond // there is something in the queue, or a writer may leave
	head, tail *Conn
	queued     int
	surplus    int // writers that may leave
}

// New returns a pool that Run, or Close, must be called for.
func New(cfg Config) *Pool {
	if cfg.Gone == nil {
		cfg.Gone = func(net.Conn) {}
	}
	p := &Pool{cfg: cfg, writers: runtime.GOMAXPROCS(0), open: make(map[uint64]*Conn), back: newBackListener(cfg.Addr)}
	p.gone.L, p.ready.L = &p.mu, &p.queue
	var err error
	if p.disconnects, err = newDisconnects(p); err != nil {
		cfg.Logger.Warn("disconnects are found by heartbeats alone", "error", err)
	}
	return p
}

// Listener hands out the connections that are net/http's again.
func (p *Pool) Listener() net.Listener { return p.back }

// Close is for a pool that is not run after all.
func (p *Pool) Close() { p.disconnects.close() }

// Run serves until End has been called. What its goroutines do is bounded by that too.
func (p *Pool) Run() error {
	for range p.writers {
		p.work.Go(p.write)
	}
	p.disconnects.run()
	return p.work.Wait()
}

// expect announces a connection, so that End waits for it.
func (p *Pool) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected++
}

// forget takes back an announcement.
func (p *Pool) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected--
	p.gone.Broadcast()
}

// add registers a connection that was announced.
func (p *Pool) add(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected--
	p.keys++
	c.key = p.keys
	p.open[c.key] = c
	if p.draining {
		c.task.Drain()
	}
}

func (p *Pool) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c.key)
	p.gone.Broadcast()
}

// disconnected is told of a connection by its key: its descriptor's number may be another's by now.
func (p *Pool) disconnected(key uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.open[key]; c != nil {
		c.task.Input()
	}
}

// Len is how many connections are the pool's.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Drain has every task say goodbye, those included that begin later.
func (p *Pool) Drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for _, c := range p.open {
		c.task.Drain()
	}
}

// End waits until no connection is left, cuts what is left when ctx ends, and lets Run return.
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
		p.gone.Wait()
	}
	p.mu.Unlock()
	p.disconnects.close()
	p.queue.Lock()
	defer p.queue.Unlock()
	p.surplus += p.writers
	p.ready.Broadcast()
}

// write is a writer: it runs one task after the other.
func (p *Pool) write() error {
	for {
		c := p.pop()
		if c == nil {
			return nil
		}
		c.task.Run()
	}
}

// writerFor is how many tasks in the queue are worth waking another writer for. Waking one, on another processor, costs as
// much as some writes; a state that few watch is written by one.
const writerFor = 32

// push wakes a writer for the first in the queue, which then goes on until the queue is empty.
func (p *Pool) push(c *Conn) {
	p.queue.Lock()
	defer p.queue.Unlock()
	if p.tail == nil {
		p.head = c
	} else {
		p.tail.next = c
	}
	p.tail = c
	if p.queued++; p.queued%writerFor == 1 {
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

// replace starts a writer in place of the caller, which has to wait for its client. The caller calls back when it goes on.
func (p *Pool) replace() (back func()) {
	p.work.Go(p.write)
	return func() {
		p.queue.Lock()
		defer p.queue.Unlock()
		p.surplus++
		p.ready.Signal()
	}
}
