package pgnotify

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// floodRate is how many changes a second make writers wait for each other's commits, so that reading all that is watched on a
	// timer is better for them; calmRate is how few end that.
	floodRate, calmRate = 400, 100
	// countOnce is the least time between two reads of a row that count as two: what two relays announce of one change is one.
	countOnce = 10 * time.Millisecond
	// window is over which changes are counted, calmFor how long there must be few; longer, up to calmMost, where there was another flood
	// within calmMost before.
	window   = 250 * time.Millisecond
	calmFor  = 2 * time.Second
	calmMost = 30 * time.Second
	// In a flood reads take half of the time, and viewers wait no less than shortest and no longer than the safety net's interval.
	share    = 1
	shortest = 50 * time.Millisecond
)

// pace says how often all that is watched is read: one number, which follows what happens. All but flooded is Run's alone.
type pace struct {
	interval    time.Duration
	never       bool // a flood
	in          *atomic.Bool
	start       time.Time     // of the window
	count       int           // rows in it
	calm        time.Time     // since when there are few
	lasts       time.Duration // for how long there must be few
	over        time.Time     // when the last flood was
	spent, cost time.Duration // of reading all, this time and the time before
}

func newPace(interval time.Duration, never bool) pace {
	return pace{interval: interval, never: never, in: new(atomic.Bool)}
}

// flooded reports whether all is read on a short timer. Safe for concurrent use.
func (p *pace) flooded() bool { return p.in.Load() }

// read counts a row that was read because something announced it; in a flood, where nothing does, one that had changed.
func (p *pace) read(announced, changed bool) (counted bool) {
	if announced || changed && p.flooded() {
		p.count++
		return true
	}
	return false
}

// round begins to read all.
func (p *pace) round() { p.cost, p.spent = p.spent, 0 }

// took notes what a part of it costs.
func (p *pace) took(d time.Duration) { p.spent += d }

// look decides whether it is a flood, and reports whether that is another answer than before. inVain are the notifications of what
// nobody watches: writers of the same buckets send them, too, and wait for each other because of them.
func (p *pace) look(inVain int) bool {
	p.count += inVain
	now := time.Now()
	since := now.Sub(p.start)
	if since < window {
		return false
	}
	rate := float64(p.count) / since.Seconds()
	p.start, p.count = now, 0
	switch {
	case !p.flooded() && rate > floodRate && !p.never:
		p.in.Store(true)
		if p.calm = now; now.Sub(p.over) < calmMost {
			p.lasts = min(2*p.lasts, calmMost)
		} else {
			p.lasts = calmFor
		}
		return true
	case p.flooded() && rate > calmRate:
		p.calm = now
	case p.flooded() && now.Sub(p.calm) >= p.lasts:
		p.in.Store(false)
		p.over = now
		return true
	}
	return false
}

// next is the time until everything is read again.
func (p *pace) next() time.Duration {
	if p.flooded() {
		return min(max(share*max(p.cost, p.spent), shortest), p.interval)
	}
	return p.interval - rand.N(p.interval/10+1)
}
