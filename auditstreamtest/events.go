package auditstreamtest

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"time"

	"auditstream"
)

// maxEvent is more than an event of the largest row has, in bytes.
const maxEvent = 16 << 20

// shown is what an event's data says.
type shown struct {
	Status   string
	Progress int
	Message  string
	Error    string
}

// events reads what a stream says until it ends, and reports whether that is all there will be.
func (v *Viewer) events(body io.Reader, last *string) (over bool) {
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
			if over = v.event(id, data); over {
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

// event notes one event. An error event says that the row went, or is somebody else's now, or that the server has a reason of its own.
func (v *Viewer) event(id, data string) (over bool) {
	var s shown
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		v.note(func() { v.refused = "an event that is no JSON: " + data })
		return true
	}
	if s.Status == "" {
		if s.Error == "Audit not found" || s.Error == "No such row" || s.Error == "Cross-user access denied" {
			v.note(func() { v.refused = s.Error })
			return true
		}
		return false
	}
	state := auditstream.State{Key: v.key, Status: s.Status, Progress: s.Progress, Message: s.Message, Error: s.Error,
		Ended: s.Status == "completed" || s.Status == "failed", JSON: json.RawMessage(data), Fingerprint: id}
	v.note(func() {
		if n := len(v.seen); n > 0 && v.seen[n-1].Fingerprint == id { // the same again, on a stream after a fault
			return
		}
		v.seen = append(v.seen, sighting{state, time.Since(v.began)})
	})
	return state.Ended
}

func copyLimited(to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, io.LimitReader(from, 1000))
	return err
}
