package server

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"auditstream/store"
)

// writeTimeout bounds each write to a stream: a client that does not read for so long is cut off.
const writeTimeout = 5 * time.Second

// heartbeat is a comment: it keeps proxies from closing an idle connection, and finds clients that have gone.
const heartbeat = ": heartbeat\n\n"

// eventStream writes Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html). It is the only
// writer of SSE bytes. Each write is a whole block, flushed, with a deadline. Not safe for concurrent use.
type eventStream struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	events int // events written, for the log
}

// openEvents sends the header. The status is always 200: any other ends a browser's EventSource for good.
func openEvents(w http.ResponseWriter) *eventStream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events in its buffer
	w.WriteHeader(http.StatusOK)
	return &eventStream{w: w, rc: http.NewResponseController(w)}
}

// first sends the state at the time of connecting and tells the client when to come back after a disconnect. The event is
// not copied: a thousand clients that are slow to take it share its bytes.
func (e *eventStream) first(s *store.State, retry time.Duration) error {
	e.events++
	return e.writeBytes([]byte(retryField(retry)), s.Encoded(encodeEvent))
}

// state sends a changed state.
func (e *eventStream) state(s *store.State) error {
	e.events++
	return e.writeBytes(s.Encoded(encodeEvent))
}

func (e *eventStream) heartbeat() error { return e.write(heartbeat) }

// fail sends an error event, with a retry field before it unless retry is 0.
func (e *eventStream) fail(text string, retry time.Duration) error {
	e.events++
	return e.write(retryField(retry) + "event: message\ndata: " + string(errorJSON(text)) + "\n\n")
}

// goodbye tells the client when to come back, without an event.
func (e *eventStream) goodbye(retry time.Duration) error { return e.write(retryField(retry) + "\n") }

func (e *eventStream) write(block string) error { return e.writeBytes([]byte(block)) }

// writeBytes clears the deadline afterwards: on HTTP/2 one that passes resets the stream even when nothing is written.
func (e *eventStream) writeBytes(parts ...[]byte) error {
	if err := e.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	for _, part := range parts {
		if _, err := e.w.Write(part); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	if err := e.rc.Flush(); err != nil {
		return fmt.Errorf("flush event: %w", err)
	}
	if err := e.rc.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear write deadline: %w", err)
	}
	return nil
}

// encodeEvent formats a state as an event. JSON is one line, so there is one data field.
func encodeEvent(s *store.State) []byte {
	b := make([]byte, 0, len(s.JSON)+64)
	b = append(b, "event: message\nid: "...)
	b = append(b, s.Fingerprint...)
	b = append(b, "\ndata: "...)
	b = append(b, s.JSON...)
	return append(b, "\n\n"...)
}

func retryField(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return "retry: " + strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "\n"
}
