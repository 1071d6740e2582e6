package pgnotify

import (
	"slices"
	"time"
)

const (
	settleMin = 10 * time.Millisecond
	settleMax = time.Second
)

// settling knows which audits may still change unannounced: a transaction that was open when an audit was registered may have
// looked for it before, and rings nothing when it commits. So the audit is read again when such a transaction has ended.
type settling struct {
	open  []uint64         // transactions that were open at a registration and have not ended since, ascending
	since map[int64]uint64 // registered while some were open: transactions from this one on look late enough
	delay time.Duration    // until the next look
	asked time.Time        // when the newest look was begun that saw anything
}

// registered notes what was registered, with the transactions that may have looked before.
func (s *settling) registered(ids []int64, snap Snapshot) {
	if len(snap.InProgress) == 0 {
		return
	}
	if s.since == nil {
		s.since = make(map[int64]uint64)
	}
	for _, id := range ids {
		s.since[id] = snap.Xmax
	}
	s.open = append(s.open, snap.InProgress...)
	slices.Sort(s.open)
	s.open = slices.Compact(s.open)
	s.delay = settleMin
}

// waiting says whether there is anything to look for.
func (s *settling) waiting() bool { return len(s.open) > 0 }

// backOff makes the next look a later one.
func (s *settling) backOff() { s.delay = min(2*s.delay, settleMax) }

// undecided reports whether a change may be of a transaction that had to ring nothing and has not been seen to end since.
func (s *settling) undecided(id int64, found time.Time) bool {
	_, waits := s.since[id]
	return waits && !s.asked.After(found)
}

// look takes a newer snapshot and returns the audits to read again, those that need not be among them. A transaction that goes on for hours causes no read until
// it ends, and one look a second at most.
func (s *settling) look(snap Snapshot, needed func(int64) bool) (again []int64) {
	var open, ended []uint64
	for _, xid := range s.open {
		_, running := slices.BinarySearch(snap.InProgress, xid)
		if running || xid >= snap.Xmax {
			open = append(open, xid)
		} else {
			ended = append(ended, xid)
		}
	}
	s.open = open
	s.backOff()
	for id, since := range s.since {
		if len(ended) > 0 && ended[0] < since {
			again = append(again, id)
		}
		if !needed(id) || len(open) == 0 || open[0] >= since {
			delete(s.since, id)
		}
	}
	return again
}
