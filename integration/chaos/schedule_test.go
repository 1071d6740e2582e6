package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// schedule is all that is decided before a run: what the application writes and what breaks, from one seed. How long a
// restart takes, and so what overlaps exactly, is the machine's part.
type schedule struct {
	seed     uint64
	duration time.Duration
	writes   []plannedWrite
	// lanes run side by side, so that faults of different lanes overlap and those of one do not.
	lanes [][]plannedFault
	kinds []faultKind // that a long run must see
}

// plannedWrite is one deed of the application's. What it finds when its time comes decides the details: a slot whose
// audit has ended gets a successor instead.
type plannedWrite struct {
	at    time.Duration
	kind  writeKind
	slots []int
	hold  time.Duration // how long a long transaction keeps its change to itself
	seed  uint64        // of the row's fields
}

type writeKind string

const (
	writeUpdate    writeKind = "update"
	writeBulk      writeKind = "bulk update"
	writeRollback  writeKind = "rolled back"
	writeSavepoint writeKind = "rolled back to a savepoint"
	writeLong      writeKind = "long transaction"
	writeOwner     writeKind = "owner change"
	writeDelete    writeKind = "delete"
	writeComplete  writeKind = "completion"
	writeTruncate  writeKind = "truncate"
)

// writeWeights says how often each kind happens, out of their sum.
var writeWeights = []struct {
	kind   writeKind
	weight int
}{
	{writeUpdate, 120}, {writeBulk, 12}, {writeRollback, 10}, {writeSavepoint, 8}, {writeLong, 4},
	{writeOwner, 12}, {writeDelete, 6}, {writeComplete, 6},
}

// plannedFault waits for gap, breaks something, and mends it after hold.
type plannedFault struct {
	gap, hold time.Duration
	kind      faultKind
	instance  int
	variant   int // what else there is to choose, for the fault to interpret
}

type faultKind string

const (
	faultTerminate faultKind = "listener terminated"
	faultFast      faultKind = "PostgreSQL restarted fast"
	faultImmediate faultKind = "PostgreSQL restarted immediately"
	faultCrash     faultKind = "PostgreSQL crashed"
	faultPause     faultKind = "PostgreSQL stopped (SIGSTOP)"

	faultHoleListen faultKind = "LISTEN black-holed, resumed"
	faultHoleCut    faultKind = "LISTEN black-holed, cut"
	faultHolePool   faultKind = "pool black-holed"
	faultHoleBoth   faultKind = "pool and LISTEN black-holed, cut"
	faultTerm       faultKind = "server SIGTERM"
	faultKill       faultKind = "server SIGKILL"
	faultFreeze     faultKind = "server stopped (SIGSTOP)"

	faultRedisKill   faultKind = "Redis killed"
	faultRedisPause  faultKind = "Redis stopped (SIGSTOP)"
	faultRedisHole   faultKind = "Redis black-holed, cut"
	faultRelayKill   faultKind = "relay SIGKILL"
	faultRelayFreeze faultKind = "relay stopped (SIGSTOP)"

	faultTriggerDrop    faultKind = "trigger dropped"
	faultTriggerDisable faultKind = "triggers disabled"
)

// alone is the fault that no other may accompany: each reconnect of the listener reads everything again, which would
// make good what the safety net is there for.
const alone = faultTriggerDisable

// faultChoice is a fault of a lane, with the range of its hold.
type faultChoice struct {
	kind           faultKind
	holdMin, holdX time.Duration // from holdMin to holdMin+holdX
}

type faultLane struct {
	gapMin, gapX time.Duration
	choices      []faultChoice
}

var faultLanes = []faultLane{
	{1500 * time.Millisecond, 3 * time.Second, []faultChoice{
		{faultTerminate, 0, 0}, {faultTerminate, 0, 0},
		{faultFast, 0, 3 * time.Second}, {faultImmediate, 0, 3 * time.Second}, {faultCrash, 0, 3 * time.Second},
		{faultPause, time.Second, 5 * time.Second},
	}},
	{500 * time.Millisecond, 2 * time.Second, []faultChoice{
		{faultHoleListen, time.Second, 8 * time.Second}, {faultHoleCut, time.Second, 8 * time.Second},
		{faultHolePool, time.Second, 6 * time.Second}, {faultHoleBoth, time.Second, 6 * time.Second},
		{faultTerm, 0, 2 * time.Second}, {faultKill, 0, 2 * time.Second}, {faultFreeze, time.Second, 3 * time.Second},
	}},
	{3 * time.Second, 5 * time.Second, []faultChoice{
		// The last for longer than the safety net may take, and alone: nothing else must help.
		{faultTriggerDrop, time.Second, 2 * time.Second}, {faultTriggerDrop, time.Second, 2 * time.Second},
		{faultTriggerDisable, safetyNet + slack + time.Second, 3 * time.Second},
	}},
}

// redisLanes are for instances whose hints come through a relay and Redis.
var redisLanes = []faultLane{
	{1500 * time.Millisecond, 3 * time.Second, []faultChoice{
		{faultTerminate, 0, 0}, {faultFast, 0, 2 * time.Second}, {faultPause, time.Second, 4 * time.Second},
	}},
	{2 * time.Second, 4 * time.Second, []faultChoice{
		{faultTerm, 0, 2 * time.Second}, {faultKill, 0, 2 * time.Second}, {faultFreeze, time.Second, 3 * time.Second},
	}},
	{500 * time.Millisecond, 2 * time.Second, []faultChoice{
		{faultRedisKill, 0, 3 * time.Second}, {faultRedisPause, time.Second, 4 * time.Second}, {faultRedisHole, time.Second, 4 * time.Second},
		{faultRelayKill, 0, 3 * time.Second}, {faultRelayFreeze, time.Second, 5 * time.Second},
	}},
}

const (
	writesPerSecond = 24
	// truncateEvery is roughly how often everything is truncated away; in a short run it happens once.
	truncateEvery = 90 * time.Second
)

func newSchedule(seed uint64, duration time.Duration, slots int, lanes []faultLane) schedule {
	s := schedule{seed: seed, duration: duration, kinds: everyFault(lanes)}
	r := rand.New(rand.NewPCG(seed, 1))
	for at := time.Duration(0); at < duration; at += between(r, 0, 2*time.Second/writesPerSecond) {
		s.writes = append(s.writes, planWrite(r, at, slots))
	}
	for at := duration / 2; at < duration; at += between(r, truncateEvery/2, truncateEvery) {
		s.writes = append(s.writes, plannedWrite{at: at, kind: writeTruncate, slots: upTo(slots), seed: r.Uint64()})
	}
	slices.SortStableFunc(s.writes, func(a, b plannedWrite) int { return int(a.at - b.at) })
	for k, lane := range lanes {
		r := rand.New(rand.NewPCG(seed, uint64(2+k)))
		var faults []plannedFault
		for at := time.Duration(0); at < duration; {
			// A bag that is emptied before it is filled again: a short run sees every kind.
			for _, n := range r.Perm(len(lane.choices)) {
				c := lane.choices[n]
				f := plannedFault{
					gap: between(r, lane.gapMin, lane.gapX), hold: between(r, c.holdMin, c.holdX),
					kind: c.kind, instance: r.IntN(2), variant: r.IntN(1 << 16),
				}
				at += f.gap + f.hold
				faults = append(faults, f)
			}
		}
		s.lanes = append(s.lanes, faults)
	}
	return s
}

func planWrite(r *rand.Rand, at time.Duration, slots int) plannedWrite {
	sum := 0
	for _, w := range writeWeights {
		sum += w.weight
	}
	// Some audits change all the time, and some hardly ever: what is missed there is not made good by the next change.
	w := plannedWrite{at: at, slots: []int{r.IntN(1 + r.IntN(slots))}, seed: r.Uint64()}
	n := r.IntN(sum)
	for _, choice := range writeWeights {
		if n -= choice.weight; n < 0 {
			w.kind = choice.kind
			break
		}
	}
	switch w.kind {
	case writeBulk:
		w.slots = r.Perm(slots)[:2+r.IntN(slots-1)]
		slices.Sort(w.slots) // everybody locks in this order
	case writeLong:
		// Not all the time one or another: install could never have the table's lock.
		w.hold = between(r, time.Second, 3*time.Second)
	case writeRollback, writeSavepoint:
		w.hold = between(r, 0, 300*time.Millisecond)
	}
	return w
}

func between(r *rand.Rand, least, more time.Duration) time.Duration {
	if more == 0 {
		return least
	}
	return least + time.Duration(r.Int64N(int64(more)))
}

func upTo(n int) []int {
	all := make([]int, n)
	for k := range all {
		all[k] = k
	}
	return all
}

// String is the schedule of faults as it is printed when a run fails; the writes follow from the seed.
func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CHAOS=%v CHAOS_SEED=%d: %d writes", s.duration, s.seed, len(s.writes))
	for k, lane := range s.lanes {
		fmt.Fprintf(&b, "\nlane %d:", k+1)
		at := time.Duration(0)
		for _, f := range lane {
			at += f.gap
			if at > s.duration {
				break
			}
			fmt.Fprintf(&b, " +%.1fs %s", f.gap.Seconds(), f.kind)
			if f.hold > 0 {
				fmt.Fprintf(&b, " for %.1fs", f.hold.Seconds())
			}
			b.WriteByte(';')
			at += f.hold
		}
	}
	return b.String()
}
