package bench

import "golang.org/x/sys/unix"

// What the measuring process and its load processes say to each other, as gob over standard input and output.

// order is one of: connect, take, leave.
type order struct {
	Connect *connectOrder
	Take    bool // hand over what was read since the last time
	Leave   bool // end all connections
}

type connectOrder struct {
	Port     int
	Source   [4]byte  // the loopback address to come from: each has ports of its own
	Requests [][]byte // one for each audit
	Clients  []int32  // the audit of each
}

// reply answers every order.
type reply struct {
	Fault   string // what must not happen
	Began   int64  // the first connect, by now()
	Whole   int64  // the last client's first event
	Sum     int64  // of the states that the clients have been shown last
	Samples []sample
}

// sample is one event that a client read.
type sample struct {
	Audit    int32
	From, To int32 // the state before, -1 for a first event, and the new one
	At       int64
}

// now is a clock that all processes of this machine share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // it has no way to fail
	}
	return t.Nano()
}
