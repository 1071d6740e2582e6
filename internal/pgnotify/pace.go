package pgnotify

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// A flood begins above floodRate changes a second: there, notifying makes writers wait for each other's commits, and to read all that
	// is watched on a short timer costs them less. It ends below calmRate.
	floodRate, calmRate = 400, 100
	// duplicateWindow is the least time between two reads of a row that count as two changes: two relays announce one change twice.
	duplicateWindow = 10 * time.Millisecond
	// rateWindow is the least time over which changes are counted. Longer means that a flood is noticed later.
	rateWindow = 250 * time.Millisecond
	// A flood ends after the rate was low for minCalm. After each flood that follows another within maxCalm, the time doubles, up to
	// maxCalm, so that the hub does not switch back and forth.
	minCalm = 2 * time.Second
	maxCalm = 30 * time.Second
	// minFloodInterval is the shortest time between two rounds in a flood, and the safety net's interval the longest. Between them, a
	// round begins after as much time as the last one took, so that reads take half of the time.
	minFloodInterval = 50 * time.Millisecond
	// unwatchedBatch is after how many notifications for keys that nobody watches Run evaluates the rate.
	unwatchedBatch = 50
)

// pace decides how often all that is watched is read, from the rate of changes. Only Run touches the fields that are not atomic.
type pace struct {
	interval                 time.Duration
	noFlood                  bool // HubConfig.NoFlood
	flood                    atomic.Bool
	changes                  atomic.Int64 // since windowStart
	windowStart              time.Time
	lastBusy                 time.Time     // when the rate was last high
	calmNeeded               time.Duration // how long the rate must be low to end this flood
	roundCost, lastRoundCost time.Duration // time spent on the reads of this round, and of the last one
}

// flooded reports whether there is a flood, so that all that is watched is read on a short timer. Safe for concurrent use.
func (p *pace) flooded() bool { return p.flood.Load() }

// countUnwatched counts a notification for a key that nobody watches: writers send it because somebody watches another key of the bucket,
// and it makes them wait for each other, too. It reports whether Run should evaluate the rate now. Safe for concurrent use.
func (p *pace) countUnwatched() bool { return p.changes.Add(1)%unwatchedBatch == 0 }

// evaluate begins or ends a flood by the rate of changes, and reports whether it did.
func (p *pace) evaluate() bool {
	now := time.Now()
	since := now.Sub(p.windowStart)
	if since < rateWindow {
		return false
	}
	rate := float64(p.changes.Swap(0)) / since.Seconds()
	p.windowStart = now
	switch quiet := now.Sub(p.lastBusy); {
	case p.flooded() && rate > calmRate:
		p.lastBusy = now
	case p.flooded() && quiet >= p.calmNeeded:
		p.flood.Store(false)
		return true
	case !p.flooded() && rate > floodRate && !p.noFlood:
		if quiet >= p.calmNeeded+maxCalm {
			p.calmNeeded = minCalm / 2
		}
		p.calmNeeded, p.lastBusy = min(2*p.calmNeeded, maxCalm), now
		p.flood.Store(true)
		return true
	}
	return false
}

// nextRound returns the time until the next read of all that is watched.
func (p *pace) nextRound() time.Duration {
	if p.flooded() {
		return min(max(p.lastRoundCost, p.roundCost, minFloodInterval), p.interval)
	}
	return p.interval - rand.N(p.interval/10+1)
}
