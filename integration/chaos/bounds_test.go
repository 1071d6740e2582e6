package chaos

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// What the contract promises, and the one allowance for a machine that has more to do than cores.
const (
	// prompt bounds the way of a change when nothing is broken, and after LISTEN is back.
	prompt = time.Second
	// safetyNet is SSE_FALLBACK_DB_INTERVAL_SECONDS: how late a change may be of which no notification tells.
	safetyNet = 10 * time.Second
	// recovery is how soon the committed state is shown once the database can be read again.
	recovery = 10 * time.Second
	// detection is when at the latest the watchdog gives up a silent connection: a canary every 4 s, 2 s to send it and
	// 2 s for it to come back.
	detection = 8 * time.Second
	// relisten is how soon LISTEN is back once it is possible: a delay and a connect of at most 5 s each, and the canary.
	relisten = 12 * time.Second
	// firstAnswer is how soon a request is answered, be it with a refusal.
	firstAnswer = 2 * time.Second
	// slack is added to every bound above, and to none below zero: the race detector and other tests share the machine.
	slack = 2 * time.Second
)

// effect is what a fault does to an instance, or to one client.
type effect int

const (
	// deaf: notifications do not arrive. At the end LISTEN is in force, and everything is read again.
	deaf effect = iota
	// mute: nobody notifies, because a trigger is missing. Nothing tells the instance when that ends.
	mute
	// blind: the database cannot be read.
	blind
	// down: the instance does not run.
	down
	// away: the client has no stream.
	away
)

const everyInstance = -1

// window is the time of a fault, and so the explanation of what happened late in it.
type window struct {
	cause    string
	effect   effect
	instance int
	from, to time.Time
	database bool // PostgreSQL itself is the cause: the application notices too
	// relistened, on a blind window of one instance, is when its log says that LISTEN was in force again; zero: it was
	// never lost.
	relistened time.Time
}

func (w window) hits(instance int) bool { return w.instance == everyInstance || w.instance == instance }

func (w window) overlaps(from, to time.Time) bool { return !w.from.After(to) && !w.to.Before(from) }

// journal is the windows of a run. Safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	windows []*window
	counts  map[faultKind]int
}

func newJournal() *journal { return &journal{counts: make(map[faultKind]int)} }

func (j *journal) begin(kind faultKind, e effect, instance int) *window {
	j.mu.Lock()
	defer j.mu.Unlock()
	// It has no end yet: until it has, whatever comes is in it.
	w := &window{cause: string(kind), effect: e, instance: instance, from: time.Now(), to: time.Now().Add(time.Hour)}
	j.windows = append(j.windows, w)
	return w
}

// beginOutage is begin for faults of PostgreSQL itself.
func (j *journal) beginOutage(kind faultKind) *window {
	w := j.begin(kind, blind, everyInstance)
	j.mu.Lock()
	defer j.mu.Unlock()
	w.database = true
	return w
}

func (j *journal) end(w *window) {
	j.mu.Lock()
	defer j.mu.Unlock()
	w.to = time.Now()
}

func (j *journal) count(kind faultKind) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts[kind]++
}

func (j *journal) all() []window {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]window, 0, len(j.windows))
	for _, w := range j.windows {
		all = append(all, *w)
	}
	return all
}

// outage reports whether PostgreSQL was down at some moment from one time to another, with the slack after it in which
// a client of PostgreSQL may still stumble over a connection that died.
func (j *journal) outage(from, to time.Time) bool {
	for _, w := range j.all() {
		if w.database && w.overlaps(from.Add(-slack), to) {
			return true
		}
	}
	return false
}

// due says until when a client must have been shown what was committed at a time, without the slack, and which fault
// allows that much. Here is the whole mapping from faults to staleness. The windows are those of the client: of
// the instances that it was connected with meanwhile, and those without a stream, in the order of their beginnings.
func due(committed time.Time, windows []window) (deadline time.Time, cause string) {
	deadline, cause = committed.Add(prompt), noFault
	for _, w := range windows {
		if w.from.After(deadline.Add(slack)) { // a fault may begin while a change is late by no more than the slack
			break // so do all that follow
		}
		if w.to.Before(committed) {
			continue
		}
		var until time.Time
		switch w.effect {
		case deaf: // 10 s while LISTEN is broken, 1 s after it is back
			until = earliest(committed.Add(safetyNet), w.to.Add(prompt))
		case mute:
			until = committed.Add(safetyNet)
		case blind: // 10 s after the database is back, 1 s after LISTEN is back
			until = w.to.Add(recovery)
			if !w.relistened.IsZero() {
				until = earliest(until, latest(w.relistened, w.to).Add(prompt))
			}
		case down:
			until = w.to.Add(prompt)
		case away: // the first event of the next stream; checked to be the newest state
			until = w.to
		}
		if until.After(deadline) {
			deadline, cause = until, w.cause
		}
	}
	return deadline, cause
}

const noFault = "none"

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// listening tells from an instance's log when LISTEN was in force: the times it changed, in turn, beginning with up.
type listening []turn

type turn struct {
	at time.Time
	up bool
}

// With hints from Redis the triggers must ring for the instance, too; and a relay must be able to publish.
func readListening(records []logRecord, redis bool) listening {
	var l listening
	hears, rings, publishes := false, !redis, true
	for _, r := range records {
		begins := func(beginnings ...string) bool {
			return slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(r.Msg, b) })
		}
		switch {
		case begins("listening for notifications"):
			hears = true
		case begins("listening connection lost", "listening failed again", "LISTEN ", "no subscription to Redis", "Redis (REDIS_URL) takes no message", "no relay is heard"):
			hears = false
		case begins("telling the triggers"):
			rings = true
		case begins("the triggers cannot learn what is watched, trying again"):
			rings = false
		case begins("Redis takes hints again"):
			publishes = true
		case begins("Redis (REDIS_URL) takes no hints"):
			publishes = false
		default:
			continue
		}
		up := hears && rings && publishes
		if len(l) > 0 && l[len(l)-1].up == up || len(l) == 0 && !up {
			continue
		}
		l = append(l, turn{r.Time, up})
	}
	return l
}

// renewed is when LISTEN came into force for the first time after a moment; zero: never.
func (l listening) renewed(after time.Time) time.Time {
	for _, t := range l {
		if t.up && t.at.After(after) {
			return t.at
		}
	}
	return time.Time{}
}

// gaps are the times without LISTEN of a process that served from one time to another.
func (l listening) gaps(from, to time.Time) (gaps [][2]time.Time) {
	since, deafNow := from, true
	for _, t := range l {
		if t.up && deafNow {
			gaps = append(gaps, [2]time.Time{since, t.at})
		}
		since, deafNow = t.at, !t.up
	}
	if deafNow {
		gaps = append(gaps, [2]time.Time{since, to})
	}
	return gaps
}
