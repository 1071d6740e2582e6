package pgnotify

import (
	"slices"
	"time"

	"auditstream/internal/store"
)

// FeedAnnouncer is the [Announcer] of one feed's hub. All feeds of a process share a [Registrar]. Its methods are safe for concurrent use and
// do not block.
type FeedAnnouncer struct {
	registrar *Registrar
	feed      *store.Feed
	mark      func(chosen func(store.Key) bool)
	watched   map[int]int // the number of watched keys of each bucket; Registrar.mu guards this and flooded
	flooded   bool
}

var _ Announcer = (*FeedAnnouncer)(nil)

// Feed returns an announcer for a feed. It works from Attach, which NewHub calls, to Detach.
func (r *Registrar) Feed(feed *store.Feed) *FeedAnnouncer {
	return &FeedAnnouncer{registrar: r, feed: feed, watched: make(map[int]int)}
}

// Attach implements [Announcer].
func (f *FeedAnnouncer) Attach(mark func(chosen func(store.Key) bool)) {
	f.registrar.mu.Lock()
	defer f.registrar.mu.Unlock()
	f.mark = mark
	f.registrar.feeds = append(f.registrar.feeds, f)
}

// Detach takes the feed out of the registrar. Changes of its keys are not announced any more, even while somebody watches them.
func (f *FeedAnnouncer) Detach() {
	f.Flood(true)
	f.registrar.mu.Lock()
	defer f.registrar.mu.Unlock()
	f.registrar.feeds = slices.DeleteFunc(f.registrar.feeds, func(other *FeedAnnouncer) bool { return other == f })
}

// Announced implements [Announcer].
func (f *FeedAnnouncer) Announced(key store.Key) bool {
	f.registrar.mu.Lock()
	defer f.registrar.mu.Unlock()
	return !f.flooded && !slices.ContainsFunc(bucketsOf(f.registrar.buckets[:], f.feed, key), func(b bucket) bool { return !b.held || b.waitBelow != 0 })
}

// Want implements [Announcer].
func (f *FeedAnnouncer) Want(key store.Key) { f.addWatchers(key, 1) }

// Leave implements [Announcer].
func (f *FeedAnnouncer) Leave(key store.Key) { f.addWatchers(key, -1) }

// addWatchers adds more, which is 1 or -1, to the watchers of a key.
func (f *FeedAnnouncer) addWatchers(key store.Key, more int) {
	r := f.registrar
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys += more
	first, n := bucketsOfKey(f.feed, key)
	for k := first; k < first+n; k++ {
		if f.watched[k] += more; f.watched[k] == 0 {
			delete(f.watched, k)
		}
		if !f.flooded {
			r.countWatchers(k, more, time.Now())
		}
	}
}

// countWatchers adds more to the watched keys of bucket k. A lock that is not needed any more is kept for lockLinger after changed. The
// caller holds mu.
func (r *Registrar) countWatchers(k, more int, changed time.Time) {
	b := &r.buckets[k]
	b.watched += more
	if b.changed = changed; !b.held || b.watched == 0 {
		r.retryPause = 0
		r.wake.Ring()
	}
}

// Flood implements [Announcer]. During a flood, the locks that no other feed needs are released at once.
func (f *FeedAnnouncer) Flood(flooded bool) {
	r := f.registrar
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.flooded == flooded {
		return
	}
	f.flooded = flooded
	for k, n := range f.watched {
		if flooded {
			n = -n
		}
		r.countWatchers(k, n, time.Time{})
	}
}
