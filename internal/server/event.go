package server

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"auditstream/internal/store"
)

const (
	// writeTimeout is for how long a client may take nothing before it is cut off.
	writeTimeout = 5 * time.Second
	// writePiece is what it has to take in that time of an event that is longer, in bytes.
	writePiece = 16 << 10
)

// heartbeat is a comment: it keeps proxies from closing an idle connection, and finds clients that have gone.
const heartbeat = ": heartbeat\n\n"

// endComment tells our clients that the state in the same block is the row's last one, where its status does not say so.
const endComment = ": end\n"

// eventStream writes Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html). It is the only
// writer of SSE bytes. Each write is a whole block, flushed, with a deadline for progress. Not safe for concurrent use.
type eventStream struct {
	out    sink
	events int       // events written, for the log
	wrote  time.Time // the last block
}

// sink is the connection of a stream: net/http's answer, or what was taken from it.
type sink interface {
	// send puts out text and then an event, which all streams share and which may be nil, as one block, each writePiece of it
	// within writeTimeout.
	send(text string, event []byte) error
	// Schedule has the stream's Run called, by another goroutine. It does not block.
	Schedule()
	// close is told of the stream's end, and whether the connection is sound. It reports whether it needs no Run any more.
	close(st *stream, reason string, sound bool) (over bool)
	// rest is told of what happens after the stream's end, and reports whether that was the last.
	rest(st *stream, due uint32) (over bool)
}

func setEventHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events in its buffer
}

// opening is what a stream begins with, before its first event: how often something will come, in a comment, which tells clients
// when silence is a fault; and when to come back.
func opening(heartbeat, retry time.Duration) string {
	return ": heartbeat every " + strconv.FormatFloat(heartbeat.Seconds(), 'f', -1, 64) + " s\n\n" + retryField(retry)
}

// state sends a state, after before, which may be an opening. The event is not copied: a thousand clients that are slow to take
// it share its bytes.
func (e *eventStream) state(s *store.State, before string) error {
	e.events++
	return e.send(before, s.Encoded(encodeEvent))
}

// open sends an opening where there is no state yet.
func (e *eventStream) open(opening string) error { return e.send(opening+"\n", nil) }

// more says that the viewer has more than the rows that are shown. It is an event of another name, which only those hear who ask for it.
func (e *eventStream) more(shown int) error {
	return e.send("event: more\ndata: {\"shown\":"+strconv.Itoa(shown)+"}\n\n", nil)
}

func (e *eventStream) heartbeat() error { return e.send(heartbeat, nil) }

// fail sends an error event, with a retry field before it unless retry is 0.
func (e *eventStream) fail(text string, retry time.Duration) error {
	e.events++
	return e.send(retryField(retry)+"event: message\ndata: "+string(errorJSON(text))+"\n\n", nil)
}

// retry tells the client when to come back, without an event.
func (e *eventStream) retry(delay time.Duration) error { return e.send(retryField(delay)+"\n", nil) }

// lastID gives the client an id to come back with, without an event: a block without data is none, but its id counts.
func (e *eventStream) lastID(id string) error { return e.send("id: "+id+"\n\n", nil) }

func (e *eventStream) send(text string, event []byte) error {
	if err := e.out.send(text, event); err != nil {
		return err
	}
	e.wrote = time.Now()
	return nil
}

type deadliner interface{ SetWriteDeadline(time.Time) error }

// writePieces writes p to a client that may be slow, as long as it takes a piece in time.
func writePieces(w io.Writer, deadline deadliner, p []byte) error {
	for piece := range slices.Chunk(p, writePiece) {
		if err := deadline.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
		if _, err := w.Write(piece); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	return nil
}

// encodeEvent formats a state as an event. JSON is one line, so there is one data field.
func encodeEvent(s *store.State) []byte {
	end := ""
	if s.EndsByItsWord() {
		end = endComment
	}
	return slices.Concat([]byte(end+"event: message\nid: "), []byte(s.Fingerprint), []byte("\ndata: "), s.JSON, []byte("\n\n"))
}

func retryField(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return "retry: " + strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "\n"
}
