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
	// window is over which changes are counted, calmFor how long there must be few; longer, up to calmMost, where there was another
	// flood within calmMost before.
	window   = 250 * time.Millisecond
	calmFor  = 2 * time.Second
	calmMost = 30 * time.Second
	// In a flood reads take half of the time, and viewers wait no less than shortest and no longer than the safety net's interval.
	shortest = 50 * time.Millisecond
	// inVainTold is after how many notifications of what nobody watches Run is to look.
	inVainTold = 50
)

// pace says how often all that is watched is read: one number, which follows what happens. All but the atomic is Run's alone.
type pace struct {
	interval    time.Duration
	never       bool // a flood
	in          atomic.Bool
	count       atomic.Int64  // changes in the window
	start       time.Time     // of the window
	busy        time.Time     // when there last were many
	lasts       time.Duration // for how long there must be few
	spent, cost time.Duration // of reading all, this time and the time before
}

// flooded reports whether all is read on a short timer. Safe for concurrent use.
func (p *pace) flooded() bool { return p.in.Load() }

// inVain counts a notification of what nobody watches: writers of the same buckets send them, too, and wait for each other because
// of them. It reports whether it is time to look. Safe for concurrent use.
func (p *pace) inVain() bool { return p.count.Add(1)%inVainTold == 0 }

// look decides whether it is a flood, and reports whether that is another answer than before.
func (p *pace) look() bool {
	now := time.Now()
	since := now.Sub(p.start)
	if since < window {
		return false
	}
	rate := float64(p.count.Swap(0)) / since.Seconds()
	p.start = now
	switch quiet := now.Sub(p.busy); {
	case p.flooded() && rate > calmRate:
		p.busy = now
	case p.flooded() && quiet >= p.lasts:
		p.in.Store(false)
		return true
	case !p.flooded() && rate > floodRate && !p.never:
		if quiet >= p.lasts+calmMost {
			p.lasts = calmFor / 2
		}
		p.lasts, p.busy = min(2*p.lasts, calmMost), now
		p.in.Store(true)
		return true
	}
	return false
}

// next is the time until everything is read again.
func (p *pace) next() time.Duration {
	if p.flooded() {
		return min(max(p.cost, p.spent, shortest), p.interval)
	}
	return p.interval - rand.N(p.interval/10+1)
}
