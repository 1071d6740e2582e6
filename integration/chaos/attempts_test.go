package chaos

import (
	"slices"
	"time"
)

// attempts checks that each request was answered in time, and that each stream ended for a reason.
func (j *judge) attempts(v *verdict) {
	for k, a := range v.client.attempts {
		if a.outcome == endedCancelled {
			v.add(a.ended, "audit %d: never came to its end", a.audit)
			continue
		}
		if why := j.excuse(v.client, k, a); why != "" {
			v.add(a.ended, "attempt %d on instance %d since %s: %q %s", k, a.instance, clock(a.tried), a.outcome, why)
		}
		answered := a.answered
		if answered.IsZero() {
			answered = a.ended
		}
		if took := answered.Sub(a.tried); took > firstAnswer+slack && !j.any(a.instance, a.tried, answered, down) {
			v.add(answered, "attempt %d on instance %d was answered after %v", k, a.instance, took)
		}
	}
}

// excuse says what is wrong with the end of an attempt; empty: nothing.
func (j *judge) excuse(c *chaosClient, n int, a attempt) string {
	switch a.outcome {
	case endedVanished, endedTerminal, endedDeleted, endedDenied, "204", "403", "404": // the last five: see sighting
		return ""
	case endedNoServer, endedBroken, endedClean, endedDraining:
		if !j.any(a.instance, a.tried, a.ended, down) {
			return "while the instance was up"
		}
	case endedForNow:
		// A read that hung may fail after the database is back; the retry follows within a second.
		since := a.tried.Add(-time.Second - slack)
		if !j.any(a.instance, since, a.ended, blind, down) && !j.control.busy(since, a.ended) {
			return "while the database could be read"
		}
	case endedExpired:
		if early := a.expires.Sub(a.ended); early > 0 {
			return "before the token's exp"
		}
		if late := a.ended.Sub(a.expires); late > slack && !j.any(a.instance, a.expires, a.ended, down) && c.style != styleSlow {
			return "long after the token's exp"
		}
	case "401":
		if a.answered.Before(a.expires) {
			return "before the token's exp"
		}
	case endedTimeout:
		if open := a.ended.Sub(a.tried); open < j.replicas[a.instance].maxDuration {
			return "before SSE_MAX_DURATION"
		}
	default:
		return "is no end that the contract knows"
	}
	return ""
}

// any reports whether a fault with one of the effects hit the instance between two times.
func (j *judge) any(instance int, from, to time.Time, effects ...effect) bool {
	return slices.ContainsFunc(j.faults, func(w window) bool {
		return w.hits(instance) && slices.Contains(effects, w.effect) && w.overlaps(from, to)
	})
}

// windows are the faults that a client was exposed to, those of an instance only while it was that one's client, and
// the times in which it had no stream; in the order of their beginnings.
func (j *judge) windows(c *chaosClient) []window {
	var all []window
	for _, w := range j.faults {
		for instance, heard := range j.heard {
			if !w.hits(instance) || !c.used(instance, w) {
				continue
			}
			if w.effect == blind {
				w.relistened = heard.renewed(w.to.Add(-slack))
			}
			all = append(all, w)
		}
	}
	var without *window
	for k, a := range c.attempts {
		if without != nil && !a.answered.IsZero() && a.outcome != endedForNow && a.outcome != endedDraining {
			without.to = a.answered
			all = append(all, *without)
			without = nil
		}
		if without == nil {
			without = &window{cause: j.leaving(c, k), effect: away, from: a.ended}
		}
	}
	if without != nil {
		without.to = without.from.Add(time.Hour) // it never came back
		all = append(all, *without)
	}
	slices.SortStableFunc(all, func(a, b window) int { return a.from.Compare(b.from) })
	return all
}

func (c *chaosClient) used(instance int, w window) bool {
	return slices.ContainsFunc(c.attempts, func(a attempt) bool {
		return a.instance == instance && w.overlaps(a.tried, a.ended)
	})
}

// stopped is why there is no stream between the end of one and the next time that the user opens the page.
const stopped = "told to stop"

// leaving says why a client had no stream after an attempt, in the words of the report.
func (j *judge) leaving(c *chaosClient, n int) string {
	a := c.attempts[n]
	switch a.outcome {
	case endedVanished:
		return "client vanished"
	case endedExpired, "401":
		return "token expired"
	case endedTimeout:
		return "SSE_MAX_DURATION"
	case endedDeleted, endedDenied, endedTerminal, "204", "403", "404":
		return stopped
	}
	for _, w := range j.faults {
		if w.hits(a.instance) && (w.effect == down || w.effect == blind) && w.overlaps(a.tried, a.ended) {
			return w.cause
		}
	}
	return "reconnecting"
}
