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
	// writeTimeout is how long a write may take before the client is disconnected.
	writeTimeout = 5 * time.Second
	// writePiece is the size in bytes of the pieces of a long event; each piece has writeTimeout. Larger: slow clients are disconnected;
	// smaller: a client that hardly reads is kept longer.
	writePiece = 16 << 10
)

// heartbeat is a comment: it keeps proxies from closing an idle connection, and its write fails for clients that have gone.
const heartbeat = ": heartbeat\n\n"

// endComment tells our clients that the state in the same block is the row's last, where its status is neither completed nor failed.
const endComment = ": end\n"

// eventStream writes Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html). It is the only
// writer of SSE bytes. Each write is a whole block, flushed, with a deadline for progress. Not safe for concurrent use.
type eventStream struct {
	out    sink
	events int       // events written, for the log
	wrote  time.Time // when the last block was written
}

// sink is what a stream writes to: a response of net/http, or a hijacked connection.
type sink interface {
	// send writes text and then event, which may be nil, as one block, each writePiece of it within writeTimeout. All streams share event,
	// so send does not change it.
	send(text string, event []byte) error
	// Schedule makes another goroutine call the stream's Run. It does not block.
	Schedule()
	// close is called at the stream's end; sound says whether the connection can still be written to.
	close(reason string, sound bool)
}

func setEventHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events in its buffer
}

// opening returns a stream's beginning, before its first event: a comment with the heartbeat's interval, from which clients know when silence
// is a fault, and the retry field.
func opening(heartbeat, retry time.Duration) string {
	return ": heartbeat every " + strconv.FormatFloat(heartbeat.Seconds(), 'f', -1, 64) + " s\n\n" + retryField(retry)
}

// state sends before, which may be an opening, and then a state. The event is encoded once and not copied: all streams share its bytes.
func (e *eventStream) state(s *store.State, before string) error {
	e.events++
	return e.send(before, s.Encoded(encodeEvent))
}

// open sends an opening without a state.
func (e *eventStream) open(opening string) error { return e.send(opening+"\n", nil) }

// more tells the client that the viewer has more rows than are shown. The event has a name of its own, so that a page gets it only if it
// adds a listener for that name.
func (e *eventStream) more(shown int) error {
	return e.send("event: more\ndata: {\"shown\":"+strconv.Itoa(shown)+"}\n\n", nil)
}

func (e *eventStream) heartbeat() error { return e.send(heartbeat, nil) }

// fail sends an error event, with a retry field before it unless retry is 0.
func (e *eventStream) fail(text string, retry time.Duration) error {
	e.events++
	return e.send(retryField(retry)+"event: message\ndata: "+string(errorJSON(text))+"\n\n", nil)
}

// retry sends a retry field without an event.
func (e *eventStream) retry(delay time.Duration) error { return e.send(retryField(delay)+"\n", nil) }

// lastID sets the client's Last-Event-ID without an event: a block without data is no event, but its id counts.
func (e *eventStream) lastID(id string) error { return e.send("id: "+id+"\n\n", nil) }

func (e *eventStream) send(text string, event []byte) error {
	if err := e.out.send(text, event); err != nil {
		return err
	}
	e.wrote = time.Now()
	return nil
}

type deadliner interface{ SetWriteDeadline(time.Time) error }

// writePieces writes p in pieces, each with a deadline of its own, so that a slow client is kept while it makes progress.
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
