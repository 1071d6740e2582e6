package auditstreamtest

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"time"

	"auditstream"
)

// maxEvent bounds a line of a stream, in bytes. It is more than the largest row needs; a longer line ends the stream.
const maxEvent = 16 << 20

// eventData are the fields of an event's data that this package uses, of a row or of an error event.
type eventData struct {
	Status   string
	Progress int
	Message  string
	Error    string
}

// readEvents reads a stream to its end, and reports whether no other stream need follow.
func (v *Viewer) readEvents(body io.Reader, last *string) (over bool) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	id, data := "", ""
	for lines.Scan() {
		switch field, value, _ := strings.Cut(lines.Text(), ": "); {
		case field == "id":
			id = value
		case field == "data":
			data = value
		case lines.Text() == "" && data != "":
			if over = v.recordEvent(id, data); over {
				return true
			}
			if id != "" {
				*last = id
			}
			id, data = "", ""
		}
	}
	return false
}

// recordEvent records a state, or the refusal in an error event: the row was deleted, or its owner changed. Other error events are the
// server's own reasons to end a stream, such as a shutdown: another stream follows.
func (v *Viewer) recordEvent(id, data string) (over bool) {
	var s eventData
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		v.update(func() { v.refused = "an event that is no JSON: " + data })
		return true
	}
	if s.Status == "" {
		if s.Error == "Audit not found" || s.Error == "No such row" || s.Error == "Cross-user access denied" {
			v.update(func() { v.refused = s.Error })
			return true
		}
		return false
	}
	state := auditstream.State{Key: v.key, Status: s.Status, Progress: s.Progress, Message: s.Message, Error: s.Error,
		Ended: s.Status == "completed" || s.Status == "failed", JSON: json.RawMessage(data), Fingerprint: id}
	v.update(func() {
		if n := len(v.seen); n > 0 && v.seen[n-1].Fingerprint == id { // the first state after a reconnect, if it is the same
			return
		}
		v.seen = append(v.seen, sighting{state, time.Since(v.began)})
	})
	return state.Ended
}
