package main

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// maxEventLine bounds a line of a stream, in bytes. Our server sends no longer one.
const maxEventLine = 4 << 20

// maxHeartbeat is the longest heartbeat's interval that watch accepts, in seconds. It ignores a longer one.
const maxHeartbeat = 24 * 60 * 60

type streamEvent struct{ data, id string }

// eventReader parses the event stream format of the HTML standard, section 9.2.6. It exists because go-sse's Read hides the retry field, which
// says when to reconnect. FuzzWatchEvents compares it with go-sse's.
type eventReader struct {
	lines *bufio.Scanner
	id    string
	retry time.Duration // the last retry field; negative: none came
	first bool
	name  string // of the last event
	end   bool   // the last event's block has endComment: its state is the row's last

	retries     int                       // number of retry fields so far
	onHeartbeat func(every time.Duration) // called for the comment with the heartbeat's interval
}

func newEventReader(r io.Reader, lastEventID string) *eventReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEventLine)
	var afterCR bool
	// A CR ends its line at once. To wait for a LF that may follow would hold an event back until the next one.
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		skip := 0
		if afterCR && len(data) > 0 {
			afterCR = false
			if data[0] == '\n' {
				skip = 1
			}
		}
		for i := skip; i < len(data); i++ {
			if data[i] == '\n' || data[i] == '\r' {
				afterCR = data[i] == '\r'
				return i + 1, data[skip:i], nil
			}
		}
		return skip, nil, nil // an incomplete line at the end is dropped, as the standard requires
	})
	return &eventReader{lines: lines, id: lastEventID, retry: -1, first: true, onHeartbeat: func(time.Duration) {}}
}

// next blocks until a whole event has arrived. It returns io.EOF at the end of the stream.
func (r *eventReader) next() (streamEvent, error) {
	var data strings.Builder
	some := false
	r.name, r.end = "message", false
	for r.lines.Scan() {
		line := r.lines.Text()
		if r.first {
			line, r.first = strings.TrimPrefix(line, "\ufeff"), false
		}
		if line == "" {
			if !some {
				r.name, r.end = "message", false
				continue
			}
			return streamEvent{strings.TrimSuffix(data.String(), "\n"), r.id}, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "data":
			if data.Len()+len(value) > maxEventLine {
				return streamEvent{}, errors.New("an event is too long")
			}
			data.WriteString(value + "\n")
			some = true
		case "event":
			r.name = cmp.Or(value, "message")
		case "id":
			if !strings.Contains(value, "\x00") {
				r.id = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 32); err == nil {
				r.retry = time.Duration(ms) * time.Millisecond
				r.retries++
			}
		case "": // a comment
			r.end = r.end || value == "end"
			if every := heartbeatInterval(value); every > 0 {
				r.onHeartbeat(every)
			}
		}
	}
	if err := r.lines.Err(); err != nil {
		return streamEvent{}, err
	}
	return streamEvent{}, io.EOF
}

// heartbeatInterval returns the interval in a comment like "heartbeat every 30 s", 0 for other comments.
func heartbeatInterval(comment string) time.Duration {
	every, ok := strings.CutPrefix(comment, "heartbeat every ")
	every, unit := strings.CutSuffix(every, " s")
	s, err := strconv.ParseFloat(every, 64)
	if !ok || !unit || err != nil || !(s > 0 && s <= maxHeartbeat) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}
