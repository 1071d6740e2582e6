package server

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"auditstream/store"
)

// hijacked is a stream on a connection taken from net/http, whose two goroutines and buffers would be nine tenths of what
// it costs. It has no goroutine of its own: whatever happens to it is noted in due, and one of the writers sees to it.
// Fields without a comment are the writer's that has it, one at a time.
type hijacked struct {
	server  *Server
	key     uint64 // names it to the watcher of hang-ups
	conn    socket
	raw     syscall.RawConn
	head    []byte // of the answer, until it is written
	input   []byte // what the client sent after its request and net/http had read
	follow  follower
	events  eventStream
	wrote   time.Time // the last block
	end     time.Time // of the stream; then of the wait for the next request
	expires bool      // at the end the token does
	started bool      // the handler has returned
	resting bool      // the stream has ended, the connection is kept
	timer   *time.Timer

	due  atomic.Uint32
	next *hijacked // in the writers' queue, guarded by its mu
}

type socket interface {
	net.Conn
	syscall.Conn
}

// What happened to a stream.
const (
	dueState   = 1 << iota // there is a state in the slot
	dueTime                // the timer has fired
	dueInput               // the client has hung up, or, while it rests, sent something
	dueDrain               // the server is shutting down
	dueClaimed             // queued or with a writer; set for ever once it is closed
)

// mayHijack returns a stream that can be taken from net/http once it is known that there will be one, and what wakes it;
// nil for HTTP/2, TLS, and answers after which net/http closes the connection.
func (s *Server) mayHijack(w http.ResponseWriter, r *http.Request) (h *hijacked, wake func()) {
	if s.hijacks == nil || r.TLS != nil || r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.Close || w.Header().Get("Connection") != "" {
		return nil, nil
	}
	h = &hijacked{server: s}
	h.due.Store(dueClaimed) // by the handler
	return h, func() { h.poke(dueState) }
}

// hijack takes the connection, or reports that it cannot be taken.
func (h *hijacked) hijack(w http.ResponseWriter) bool {
	hijacks := h.server.hijacks
	hijacks.expect() // Shutdown knows nothing of the connection from Hijack on
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		hijacks.forget()
		return false
	}
	setEventHeader(w.Header())
	h.head = responseHead(w.Header())
	h.input = unread(buffered.Reader)
	if again, ok := conn.(*returnedConn); ok {
		h.input = append(h.input, again.input...)
		conn = again.socket
	}
	var ok bool
	if h.conn, ok = conn.(socket); ok { // a *net.TCPConn: nothing else is served without TLS
		h.raw, err = h.conn.SyscallConn()
	}
	if !ok || err != nil { // net/http, asked to go on, says that the connection is gone
		_ = conn.Close()
		h.server.address.closed(conn)
		hijacks.forget()
		return false
	}
	h.events.out = h
	hijacks.add(h)
	return true
}

// responseHead is the head of the answer as net/http writes it.
func responseHead(header http.Header) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = header.Write(&b) // a buffer takes everything
	b.WriteString("Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	return b.Bytes()
}

// unread is a copy of what a reader has buffered, which lets its buffer go.
func unread(r *bufio.Reader) []byte {
	b, err := r.Peek(r.Buffered())
	if err != nil || len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

// begin sends the first states, in the handler, and leaves the rest to the writers.
func (h *hijacked) begin(f follower, first []*store.State) {
	h.follow = f
	h.server.metrics.streams.Inc()
	h.guard(func() {
		if reason, err := h.server.showFirst(&h.events, f, first); reason != "" {
			h.finish(reason, err)
			return
		}
		left, _, reason := h.server.lifetime(f.who)
		h.end, h.expires = time.Now().Add(left), reason == endExpired
		h.started = true
		h.timer = time.AfterFunc(min(left, h.server.cfg.Heartbeat), func() { h.poke(dueTime) })
		h.server.hijacks.hangups.watch(h, false)
		h.server.hijacks.push(h) // something may have become due meanwhile
	})
}

// poke notes that something has happened. It does not block, and may be called from anywhere.
func (h *hijacked) poke(what uint32) {
	if h.due.Or(what|dueClaimed)&dueClaimed == 0 {
		h.server.hijacks.push(h)
	}
}

// run sees to what is due until nothing is. Only a writer that took the stream from the queue calls it.
func (h *hijacked) run() {
	h.guard(func() {
		for {
			due := h.due.Swap(dueClaimed) &^ dueClaimed
			if due == 0 {
				if h.due.CompareAndSwap(dueClaimed, 0) {
					return
				}
				continue
			}
			if h.resting {
				if h.rest(due) {
					return
				}
				continue
			}
			if reason, err := h.step(due); reason != "" {
				h.finish(reason, err)
				if !h.resting {
					return
				}
			}
		}
	})
}

// step is Server.show for one thing at a time.
func (h *hijacked) step(due uint32) (reason string, err error) {
	s := h.server
	if due&dueInput != 0 {
		return endClient, nil
	}
	if due&dueDrain != 0 {
		return endShutdown, h.events.retry(s.retryDelay())
	}
	if due&dueState != 0 {
		if reason, err := h.take(); reason != "" {
			return reason, err
		}
	}
	if due&dueTime == 0 {
		return "", nil
	}
	now := time.Now()
	if !now.Before(h.end) {
		text, reason := textTimeout, endTimeout
		if h.expires {
			text, reason = textExpired, endExpired
		}
		return reason, h.events.fail(text, s.retryAfter(reason))
	}
	if !now.Before(h.wrote.Add(s.cfg.Heartbeat)) {
		if err := h.events.heartbeat(); err != nil {
			return endClient, err
		}
	}
	h.timer.Reset(min(time.Until(h.end), time.Until(h.wrote.Add(s.cfg.Heartbeat))))
	return "", nil
}

// take shows what is in the slot.
func (h *hijacked) take() (reason string, err error) {
	if h.follow.several != nil {
		select {
		case states := <-h.follow.several.states:
			return h.server.showSeveral(&h.events, states, h.follow)
		default: // taken already
			return "", nil
		}
	}
	select {
	case state := <-h.follow.states:
		return h.server.showState(&h.events, state, h.follow.who)
	default:
		return "", nil
	}
}

// maxCopied is up to what size an event is copied behind what precedes it, in bytes, so that one write sends both.
const maxCopied = 2 << 10

// send writes a block as one chunk. What all streams share is not copied, unless it is small and saves a write.
func (h *hijacked) send(text string, event framed) error {
	if len(text) == 0 && len(h.head) == 0 {
		return h.write(event)
	}
	bare := event.bare()
	own := append(make([]byte, 0, len(h.head)+len(text)+min(len(bare), maxCopied)+16), h.head...)
	own = append(appendChunkSize(own, len(text)+len(bare)), text...)
	h.head = nil
	if len(bare) <= maxCopied {
		return h.write(append(append(own, bare...), crlf...))
	}
	if err := h.write(own); err != nil {
		return err
	}
	return h.write(event[len(event)-len(bare)-len(crlf):])
}

// write takes the way without waiting first; while it has to wait, another writer takes this one's place.
func (h *hijacked) write(p []byte) error {
	n, err := tryWrite(h.raw, p)
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if n < len(p) {
		if h.started {
			defer h.server.hijacks.replace()()
		}
		if err := h.waitWrite(p[n:]); err != nil {
			return err
		}
	}
	h.wrote = time.Now()
	return nil
}

func (h *hijacked) waitWrite(p []byte) error {
	if err := writePieces(h.conn, h.conn, p); err != nil {
		return err
	}
	return h.conn.SetWriteDeadline(time.Time{})
}

// finish accounts for the end of the stream. After a clean one the connection is kept, as net/http keeps it.
func (h *hijacked) finish(reason string, err error) {
	clean := err == nil && reason != endClient
	if clean {
		clean = h.write([]byte("0\r\n\r\n")) == nil
	}
	if h.timer != nil {
		h.timer.Stop()
	}
	h.follow.cancel()
	h.server.limit.release(h.follow.who.key())
	h.server.ended(h.follow, h.events.events, reason, err)
	h.follow = follower{}
	if !clean || reason == endShutdown {
		h.close()
		return
	}
	h.resting = true
	if h.input != nil || !h.server.hijacks.hangups.watch(h, true) {
		h.handBack()
		h.resting = false
		return
	}
	h.end = time.Now().Add(idleTimeout)
	h.timer.Reset(idleTimeout)
}

// rest waits, without a goroutine, for the client's next request or its end, and reports whether it came.
func (h *hijacked) rest(due uint32) bool {
	switch {
	case due&dueInput != 0:
		h.handBack()
	case due&dueDrain != 0, due&dueTime != 0 && !time.Now().Before(h.end):
		h.close()
	default:
		return false
	}
	return true
}

// handBack gives the connection to net/http for the next request.
func (h *hijacked) handBack() {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.server.hijacks.hangups.unwatch(h)
	h.server.address.closed(h.conn) // to be counted anew
	if !h.server.hijacks.back.hand(&returnedConn{socket: h.conn, input: h.input}) {
		_ = h.conn.Close()
	}
	h.server.hijacks.remove(h)
}

func (h *hijacked) close() {
	if h.timer != nil {
		h.timer.Stop()
	}
	_ = h.conn.Close() // the client may have done it
	h.server.address.closed(h.conn)
	h.server.hijacks.remove(h)
}

// guard is reportPanic for a stream that the handler does not see any more.
func (h *hijacked) guard(f func()) {
	defer func() {
		if cause := recover(); cause != nil {
			h.server.metrics.refused.WithLabelValues(refusedLabels[errInternal]).Inc()
			h.server.cfg.Logger.Error("a stream caused a panic; its connection is cut", "panic", cause, "stack", string(debug.Stack()))
			h.abandon(cause)
		}
	}()
	f()
}

func (h *hijacked) abandon(cause any) {
	if h.follow.cancel == nil { // it had ended
		h.close()
		return
	}
	h.finish(endError, fmt.Errorf("panic: %v", cause))
}
