package pgnotify

import (
	"slices"
	"time"
)

const (
	// Transactions that are waited for are looked for after lookMin, then less and less often.
	lookMin, lookMax = 10 * time.Millisecond, time.Second
	// maxWaits is how many lists of open transactions are kept apart.
	maxWaits = 64
)

// waits are the transactions that were open when buckets were taken: one that had looked before stays silent when it commits, so
// that what is in those buckets is read again when it has ended.
type waits struct {
	lists []wait
	delay time.Duration // until the next look
}

type wait struct {
	buckets []int32
	open    []uint64 // transactions, ascending
}

// add waits for the transactions that were open when buckets were taken. While one goes on for hours the lists stay few: what is
// waited for together is read together.
func (w *waits) add(buckets []int32, open []uint64) {
	w.lists = append(w.lists, wait{buckets: buckets, open: open})
	w.delay = lookMin
	if len(w.lists) <= maxWaits {
		return
	}
	var all wait
	for _, list := range w.lists {
		all.buckets, all.open = append(all.buckets, list.buckets...), append(all.open, list.open...)
	}
	slices.Sort(all.buckets)
	slices.Sort(all.open)
	w.lists = []wait{{buckets: slices.Compact(all.buckets), open: slices.Compact(all.open)}}
}

// look takes out what has ended. again are the buckets for which something has, over those for which nothing is waited for any more.
func (w *waits) look(snap Snapshot) (again, over []int32) {
	w.delay = min(2*w.delay, lookMax)
	for k := range w.lists {
		list := &w.lists[k]
		open := slices.DeleteFunc(slices.Clone(list.open), snap.Ended)
		if len(open) < len(list.open) {
			again = append(again, list.buckets...)
		}
		list.open = open
	}
	w.lists = slices.DeleteFunc(w.lists, func(list wait) bool {
		if len(list.open) == 0 {
			over = append(over, list.buckets...)
		}
		return len(list.open) == 0
	})
	for _, list := range w.lists { // taken, given back and taken again
		over = slices.DeleteFunc(over, func(number int32) bool { return slices.Contains(list.buckets, number) })
	}
	return again, over
}
