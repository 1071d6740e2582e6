package pgnotify

import (
	"slices"
	"time"

	"auditstream/internal/store"
)

// FeedAnnouncer is a feed's part of a [Registrar], and its hub's [Announcer]. All methods are safe for concurrent use, and none blocks.
type FeedAnnouncer struct {
	registrar *Registrar
	feed      *store.Feed
	mark      func(chosen func(store.Key) bool)
	watched   map[int]int // keys that somebody watches, by bucket; this and flooded are guarded by Registrar.mu
	flooded   bool
}

var _ Announcer = (*FeedAnnouncer)(nil)

// Feed returns the announcer of one more feed. It is a hub's from Attach to Detach.
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

// Detach ends it. Whoever watches still is not announced any more.
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
	return !f.flooded && !slices.ContainsFunc(bucketsOf(f.registrar.buckets[:], f.feed, key), func(b bucket) bool { return !b.held || b.since != 0 })
}

// Want implements [Announcer].
func (f *FeedAnnouncer) Want(key store.Key) { f.watch(key, 1) }

// Leave implements [Announcer].
func (f *FeedAnnouncer) Leave(key store.Key) { f.watch(key, -1) }

func (f *FeedAnnouncer) watch(key store.Key, more int) {
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
			r.count(k, more, time.Now())
		}
	}
}

// count counts who watches in a bucket. A lock that nobody needs any more is kept for a while after changed. The caller holds mu.
func (r *Registrar) count(k, more int, changed time.Time) {
	b := &r.buckets[k]
	b.watched += more
	if b.changed = changed; !b.held || b.watched == 0 {
		r.pause = 0
		r.wake.Ring()
	}
}

// Flood implements [Announcer]: all that no other feed needs is given back meanwhile, at once.
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
		r.count(k, n, time.Time{})
	}
}
