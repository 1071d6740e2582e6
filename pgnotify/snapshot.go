package pgnotify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot is PostgreSQL's pg_snapshot: every transaction below Xmax that is not in InProgress has ended.
type Snapshot struct {
	Xmax       uint64
	InProgress []uint64 // ascending; of top-level transactions, prepared ones among them
}

// Ended reports whether a transaction has ended.
func (s Snapshot) Ended(xid uint64) bool {
	_, running := slices.BinarySearch(s.InProgress, xid)
	return xid < s.Xmax && !running
}

// extended counts those from Xmax on that are below xid as in progress: a few, drawn since.
func (s Snapshot) extended(xid uint64) Snapshot {
	for ; s.Xmax < xid; s.Xmax++ {
		s.InProgress = append(s.InProgress, s.Xmax)
	}
	return s
}

// parseSnapshot reads xmin:xmax:xip,xip,...
func parseSnapshot(text string) (Snapshot, error) {
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return Snapshot{}, fmt.Errorf("snapshot %q: want three fields", text)
	}
	var s Snapshot
	var err error
	s.Xmax, err = strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: %w", text, err)
	}
	for xid := range strings.SplitSeq(fields[2], ",") {
		if xid == "" {
			continue
		}
		n, err := strconv.ParseUint(xid, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("snapshot %q: %w", text, err)
		}
		s.InProgress = append(s.InProgress, n)
	}
	return s, nil
}
