package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"auditstream/store"
)

const (
	// writeTimeout is for how long a client may take nothing before it is cut off.
	writeTimeout = 5 * time.Second
	// writePiece is what it has to take in that time of an event that is longer, in bytes.
	writePiece = 16 << 10
)

// heartbeat is a comment: it keeps proxies from closing an idle connection, and finds clients that have gone.
const heartbeat = ": heartbeat\n\n"

// eventStream writes Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html). It is the only
// writer of SSE bytes. Each write is a whole block, flushed, with a deadline for progress. Not safe for concurrent use.
type eventStream struct {
	out    sink
	events int // events written, for the log
}

// sink is where the bytes go: net/http's answer, or a connection taken from it.
type sink interface {
	// send puts out text and then an encoded event, which may be nil, as one block, each writePiece of it within writeTimeout.
	send(text string, event framed) error
}

// framed is an event as a chunk of HTTP/1.1, so that a hijacked connection too sends bytes that all streams share.
type framed []byte

// bare is the event without the chunk around it.
func (f framed) bare() []byte {
	_, after, _ := bytes.Cut(f, crlf)
	return bytes.TrimSuffix(after, crlf)
}

var crlf = []byte("\r\n")

// openEvents sends the header. The status is always 200: any other ends a browser's EventSource for good.
func openEvents(w http.ResponseWriter) *eventStream {
	setEventHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	return &eventStream{out: &response{w: w, rc: http.NewResponseController(w)}}
}

func setEventHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events in its buffer
}

// first sends the state at the time of connecting and tells the client when to come back after a disconnect. The event is
// not copied: a thousand clients that are slow to take it share its bytes.
func (e *eventStream) first(s *store.State, retry time.Duration) error {
	e.events++
	return e.out.send(retryField(retry), s.Encoded(encodeEvent))
}

// state sends a changed state.
func (e *eventStream) state(s *store.State) error {
	e.events++
	return e.out.send("", s.Encoded(encodeEvent))
}

func (e *eventStream) heartbeat() error { return e.write(heartbeat) }

// fail sends an error event, with a retry field before it unless retry is 0.
func (e *eventStream) fail(text string, retry time.Duration) error {
	e.events++
	return e.write(retryField(retry) + "event: message\ndata: " + string(errorJSON(text)) + "\n\n")
}

// retry tells the client when to come back, without an event.
func (e *eventStream) retry(delay time.Duration) error { return e.write(retryField(delay) + "\n") }

// lastID gives the client an id to come back with, without an event: a block without data is none, but its id counts.
func (e *eventStream) lastID(id string) error { return e.write("id: " + id + "\n\n") }

func (e *eventStream) write(block string) error { return e.out.send(block, nil) }

// response is the sink of a stream that net/http serves.
type response struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// send clears the deadline afterwards: on HTTP/2 one that passes resets the stream even when nothing is written.
func (r *response) send(text string, event framed) error {
	for _, part := range [][]byte{[]byte(text), event.bare()} {
		if err := writePieces(r.w, r.rc, part); err != nil {
			return err
		}
	}
	if err := r.rc.Flush(); err != nil {
		return fmt.Errorf("flush event: %w", err)
	}
	if err := r.rc.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear write deadline: %w", err)
	}
	return nil
}

// writePieces writes p to a client that may be slow, as long as it takes a piece in time.
func writePieces(w io.Writer, deadline interface{ SetWriteDeadline(time.Time) error }, p []byte) error {
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

// encodeEvent formats a state as an event in its chunk. JSON is one line, so there is one data field.
func encodeEvent(s *store.State) []byte {
	const name, data, end = "event: message\nid: ", "\ndata: ", "\n\n"
	length := len(name) + len(s.Fingerprint) + len(data) + len(s.JSON) + len(end)
	b := make([]byte, 0, length+len("ffffffff\r\n\r\n"))
	b = appendChunkSize(b, length)
	b = append(b, name...)
	b = append(b, s.Fingerprint...)
	b = append(b, data...)
	b = append(b, s.JSON...)
	b = append(b, end...)
	return append(b, crlf...)
}

func appendChunkSize(b []byte, n int) []byte {
	return append(strconv.AppendInt(b, int64(n), 16), crlf...)
}

func retryField(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return "retry: " + strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "\n"
}
