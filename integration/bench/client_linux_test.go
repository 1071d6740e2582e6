package bench

import (
	"bytes"
	"strconv"
)

// client is one connection, owned by its load.
type client struct {
	fd      int   // -1: closed
	audit   int32 // index
	last    int32 // newest state shown; -1: none
	waiting bool  // for the connection
	head    string
	rest    []byte // of a line that has not come whole
}

var stateField = []byte(`pages":`) // total_pages, or the field pages of a feed

// take returns the states in the events that have come whole with these bytes. An event's data is one line, of
// whichever server; anything else (headers, ids, comments, chunk sizes) does not name the field.
func (c *client) take(data []byte) (states []int32) {
	if c.head == "" {
		line, _, _ := bytes.Cut(data, []byte("\r\n"))
		c.head = string(line)
	}
	if len(c.rest) > 0 {
		data = append(c.rest, data...)
		c.rest = nil
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break
		}
		if _, after, found := bytes.Cut(line, stateField); found {
			digits := after[:len(after)-len(bytes.TrimLeft(after, "0123456789"))]
			if n, err := strconv.ParseInt(string(digits), 10, 32); err == nil {
				states = append(states, int32(n))
			}
		}
		data = rest
	}
	if len(data) > 0 {
		c.rest = bytes.Clone(data)
	}
	return states
}
