package server

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// hijacks are the connections taken from net/http, of which its Shutdown knows nothing, and the writers that serve them.
// Safe for concurrent use.
type hijacks struct {
	hangups *hangups
	back    *backListener
	trimmer *trimmer
	work    errgroup.Group
	writers int // that run starts

	mu       sync.Mutex
	open     map[uint64]*hijacked
	expected int // between expect and add
	keys     uint64
	draining bool
	gone     sync.Cond // one of open or expected is

	queue      sync.Mutex
	ready      sync.Cond // there is something in the queue, or a writer may leave
	head, tail *hijacked
	queued     int
	surplus    int // writers that may leave
}

func newHijacks(addr net.Addr, logger *slog.Logger) *hijacks {
	h := &hijacks{writers: runtime.GOMAXPROCS(0), open: make(map[uint64]*hijacked), back: newBackListener(addr), trimmer: newTrimmer(freeMemory)}
	h.gone.L, h.ready.L = &h.mu, &h.queue
	var err error
	if h.hangups, err = newHangups(h); err != nil {
		logger.Warn("hang-ups are found by heartbeats alone", "error", err)
	}
	return h
}

// run serves until end has been called. What its goroutines do is bounded by that too.
func (h *hijacks) run() error {
	for range h.writers {
		h.work.Go(h.write)
	}
	h.hangups.run()
	return h.work.Wait()
}

// expect announces a connection, so that end waits for it.
func (h *hijacks) expect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected++
}

// forget takes back an announcement.
func (h *hijacks) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected--
	h.gone.Broadcast()
}

// add registers a connection that was announced.
func (h *hijacks) add(c *hijacked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected--
	h.keys++
	c.key = h.keys
	h.open[c.key] = c
	h.trimmer.began()
	if h.draining {
		c.poke(dueDrain)
	}
}

func (h *hijacks) remove(c *hijacked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, c.key)
	h.gone.Broadcast()
}

// hungUp is told of a connection by its key: its descriptor's number may be another's by now.
func (h *hijacks) hungUp(key uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.open[key]; c != nil {
		c.poke(dueInput)
	}
}

// drain has every stream say goodbye, those included that begin later.
func (h *hijacks) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	for _, c := range h.open {
		c.poke(dueDrain)
	}
}

// end waits until no connection is left, cuts what is left when ctx ends, and lets run return.
func (h *hijacks) end(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.open {
			_ = c.conn.Close() // its writer sees the error
		}
	})
	defer stop()
	h.mu.Lock()
	for len(h.open)+h.expected > 0 {
		h.gone.Wait()
	}
	h.mu.Unlock()
	h.trimmer.stop()
	h.hangups.close()
	h.queue.Lock()
	defer h.queue.Unlock()
	h.surplus += h.writers
	h.ready.Broadcast()
}

// write is a writer: it sees to one stream after the other.
func (h *hijacks) write() error {
	for {
		c := h.pop()
		if c == nil {
			return nil
		}
		c.run()
	}
}

// writerFor is how many streams in the queue are worth waking another writer for. Waking one, on another processor, costs as
// much as some writes; a state that few watch is written by one.
const writerFor = 32

// push wakes a writer for the first in the queue, which then goes on until the queue is empty.
func (h *hijacks) push(c *hijacked) {
	h.queue.Lock()
	defer h.queue.Unlock()
	if h.tail == nil {
		h.head = c
	} else {
		h.tail.next = c
	}
	h.tail = c
	if h.queued++; h.queued%writerFor == 1 {
		h.ready.Signal()
	}
}

// pop waits for a stream that has something due; nil when there is a writer too many.
func (h *hijacks) pop() *hijacked {
	h.queue.Lock()
	defer h.queue.Unlock()
	for h.head == nil && h.surplus == 0 {
		h.ready.Wait()
	}
	if h.surplus > 0 {
		h.surplus--
		return nil
	}
	c := h.head
	h.queued--
	if h.head, c.next = c.next, nil; h.head == nil {
		h.tail = nil
	}
	return c
}

// replace starts a writer in place of the caller, which has to wait for its client. The caller calls back when it goes on.
func (h *hijacks) replace() (back func()) {
	h.work.Go(h.write)
	return func() {
		h.queue.Lock()
		defer h.queue.Unlock()
		h.surplus++
		h.ready.Signal()
	}
}
