package bench

import "fmt"

// The measures.
const (
	rssSettled        = "memory a stream, RSS, connects settled"
	rssLoaded         = "memory a stream, RSS, after the load"
	pssLoaded         = "memory a stream, PSS, after the load"
	deliveryCPU       = "server CPU a delivery"
	databaseCPU       = "PostgreSQL's CPU an update"
	connectCPU        = "server CPU a connect"
	latencyMedian     = "UPDATE to read, median"
	latency99         = "UPDATE to read, p99"
	connectTime       = "connect, to the last first event"
	fanOutMedian      = "one audit watched by all, median"
	fanOut99          = "one audit watched by all, p99"
	commits           = "commits"
	behindMedian      = "viewers behind, median"
	behind99          = "viewers behind, p99"
	commitsConnecting = "commits, a connection each"
	firstStatement    = "first UPDATE of a session, median"
	bulkTime          = "one update of all rows, time"
	bulkMemory        = "one update of all rows, the session's memory"
	readsIdle         = "reads a safety-net tick, idle"
	statementsIdle    = "all statements a tick, idle"
	readsConnect      = "reads while all connect"
	statementsConnect = "all statements while all connect"
	dashboards99      = "dashboards of 100 audits, UPDATE to read, p99"
	dashboardsLatest  = "dashboards of 100 audits, UPDATE to read, the latest"
	dashboardsLeave   = "all dashboards leave, to the last lock"
	mine99            = "UPDATE to read while one asks for all of theirs, p99"
)

// goals are issue-sized promises: what is measured, beside what, and how much is allowed.
func (b *bench) goals() []Goal {
	s := b.scale
	var all []Goal
	streams := func(measure, unit string, n int, goal Goal) {
		k := func(v string) Key {
			return Key{Measure: measure, Unit: unit, Variant: v, Streams: n, Rows: s.audits}
		}
		goal.Name, goal.Of, goal.Than, goal.Plain = fmt.Sprintf("%s (%d streams)", measure, n), k(ours), k(nchan), b.plain(k)
		all = append(all, goal)
	}
	half := Goal{AtMost: 8, RatioAtMost: 0.5}
	streams(rssSettled, "kB", s.streams, half)
	streams(rssLoaded, "kB", s.streams, half)
	streams(pssLoaded, "kB", s.streams, Goal{})
	streams(deliveryCPU, "µs", s.streams, Goal{RatioAtMost: 1.2})
	streams(databaseCPU, "µs", s.streams, Goal{})
	streams(latencyMedian, "ms", s.streams, Goal{RatioAtMost: 1.2})
	streams(latency99, "ms", s.streams, Goal{RatioAtMost: 2})
	streams(connectTime, "s", s.streams, Goal{RatioAtMost: 1.5})
	streams(fanOutMedian, "ms", s.streams, Goal{})
	streams(fanOut99, "ms", s.streams, Goal{RatioAtMost: 1.5})
	for _, m := range []struct{ measure, unit string }{{rssLoaded, "kB"}, {deliveryCPU, "µs"}} {
		k := Key{Measure: m.measure, Unit: m.unit, Variant: uuids.name, Streams: s.streams, Rows: s.audits}
		g := Goal{Name: fmt.Sprintf("%s (%d streams, uuid keys)", m.measure, s.streams), Of: k, Than: k, RatioAtMost: 1.2}
		g.Than.Variant = ours
		all = append(all, g)
	}
	all = append(all, b.firstGoals(s.audits)...)
	all = append(all, b.writerGoals(s.audits)...)
	all = append(all, b.sessionGoals(s.audits)...)
	for _, m := range []struct{ measure, unit string }{{bulkTime, "ms"}, {bulkMemory, "kB"}} {
		k := func(v string) Key {
			return Key{Measure: m.measure, Unit: m.unit, Variant: v, State: unwatched, Rows: s.bulk}
		}
		g := Goal{Name: fmt.Sprintf("%s (%d rows, nobody watching)", m.measure, s.bulk), Of: k(ours), Than: k(ours), Plain: b.plain(k), RatioAtMost: 1.3}
		g.Than.State = triggersOff
		all = append(all, g)
	}
	for _, n := range []int{s.audits, s.connects} {
		k := Key{Measure: readsIdle, Unit: "reads", Variant: ours, Streams: n}
		// A window of some ticks may see one more or one less.
		all = append(all, Goal{Name: fmt.Sprintf("%s (%d streams)", readsIdle, n), Of: k, AtMost: 1 + 1/s.idle.Seconds()})
	}
	k := Key{Measure: readsConnect, Unit: "reads", Variant: ours, Streams: s.connects}
	all = append(all, Goal{Name: fmt.Sprintf("%s (%d clients)", readsConnect, s.connects), Of: k, AtMost: max(float64(s.connects)/100, 1)})
	all = append(all, b.crowdGoals()...)
	for _, n := range s.growth {
		for _, m := range []struct{ measure, unit string }{
			{rssLoaded, "kB"}, {deliveryCPU, "µs"}, {latencyMedian, "ms"}, {latency99, "ms"}, {connectTime, "s"},
		} {
			streams(m.measure, m.unit, n, Goal{})
		}
	}
	for _, rows := range s.rows {
		all = append(all, b.rowGoals(rows)...)
	}
	return all
}

// writerGoals hold commits with triggers against those without, of the same round.
func (b *bench) writerGoals(rows int) []Goal {
	var all []Goal
	least := map[string]float64{unwatched: 0.9, tenth: 0.75, allWatched: 0.8}
	most := b.scale.writers[len(b.scale.writers)-1]
	for _, n := range b.scale.writers {
		for _, state := range triggerStates[1:] {
			k := func(v string) Key {
				return Key{Measure: commits, Unit: "/s", Variant: v, State: state, Rows: rows, Writers: n}
			}
			g := Goal{Name: fmt.Sprintf("%s of %d writers, triggers %s", commits, n, state), Of: k(ours), Than: k(ours), Plain: b.plain(k)}
			g.Than.State = triggersOff
			if n == most {
				g.RatioAtLeast = least[state]
			}
			all = append(all, g)
		}
	}
	for _, m := range []string{behindMedian, behind99} {
		k := func(v string) Key {
			return Key{Measure: m, Unit: "ms", Variant: v, State: allWatched, Rows: rows, Writers: most}
		}
		g := Goal{Name: fmt.Sprintf("%s, %d writers, all watched", m, most), Of: k(ours), Plain: b.plain(k)}
		if m == behind99 {
			g.AtMost = 100
		}
		all = append(all, g)
	}
	return all
}

// firstGoals hold the wait for a first event.
func (b *bench) firstGoals(rows int) []Goal {
	var all []Goal
	for _, n := range together {
		k := func(v string) Key { return Key{Measure: firstEvent(n), Unit: "ms", Variant: v, Rows: rows} }
		g := Goal{Name: firstEvent(n), Of: k(ours), Than: k(nchan), Plain: b.plain(k)}
		switch n {
		case 1:
			g.AtMost = 1.2
		case 16:
			g.Than = Key{Measure: firstEvent(1), Unit: "ms", Variant: ours, Rows: rows}
			g.RatioAtMost = 4
		case 64:
			g.RatioAtMost = 1.5
		}
		all = append(all, g)
	}
	return all
}

// sessionGoals hold short sessions with triggers against those without.
func (b *bench) sessionGoals(rows int) []Goal {
	k := func(v string) Key {
		return Key{Measure: commitsConnecting, Unit: "/s", Variant: v, State: unwatched, Rows: rows, Writers: 1}
	}
	rate := Goal{Name: commitsConnecting + ", nobody watching", Of: k(ours), Than: k(ours), Plain: b.plain(k), RatioAtLeast: 0.92}
	rate.Than.State = triggersOff
	first := rate
	first.Name, first.RatioAtLeast, first.RatioAtMost = firstStatement+", nobody watching", 0, 1.15 // 0.5 ms of 3.2
	for _, key := range []*Key{&first.Of, &first.Than, &first.Plain} {
		if *key != (Key{}) {
			key.Measure, key.Unit = firstStatement, "ms"
		}
	}
	return []Goal{rate, first}
}

// crowdGoals hold what many dashboards, and one user of a large table, cost everybody.
func (b *bench) crowdGoals() []Goal {
	s := b.scale
	k := Key{Measure: dashboardsLatest, Unit: "ms", Variant: ours, Streams: s.dashboards, Rows: s.dashboards * idsADashboard}
	latest := Goal{Name: fmt.Sprintf("%s (%d of them)", k.Measure, s.dashboards), Of: k, AtMost: 250}
	k.Measure = dashboards99
	most := Goal{Name: fmt.Sprintf("%s (%d of them)", k.Measure, s.dashboards), Of: k}
	k.Measure, k.Unit = dashboardsLeave, "s"
	leave := Goal{Name: fmt.Sprintf("%s (%d of them)", k.Measure, s.dashboards), Of: k, AtMost: 5}
	k = Key{Measure: mine99, Unit: "ms", Variant: ours, State: beside, Rows: s.large}
	mine := Goal{Name: fmt.Sprintf("%s (%d rows)", k.Measure, s.large), Of: k, Than: k, RatioAtMost: 1.5}
	mine.Than.State = alone
	return []Goal{most, latest, leave, mine}
}

// rowGoals hold ours in a larger table against ours in the usual one: it should make no difference.
func (b *bench) rowGoals(rows int) []Goal {
	var all []Goal
	s := b.scale
	for _, m := range []struct{ measure, unit string }{{deliveryCPU, "µs"}, {databaseCPU, "µs"}, {latencyMedian, "ms"}, {latency99, "ms"}, {connectTime, "s"}} {
		k := Key{Measure: m.measure, Unit: m.unit, Variant: ours, Streams: s.streams, Rows: rows}
		usual := k
		usual.Rows = s.audits
		all = append(all, Goal{Name: fmt.Sprintf("%s (%d streams, %d rows)", m.measure, s.streams, rows), Of: k, Than: usual})
	}
	for _, state := range triggerStates[1:3] {
		k := Key{Measure: commits, Unit: "/s", Variant: ours, State: state, Rows: rows, Writers: s.writers[len(s.writers)-1]}
		g := Goal{Name: fmt.Sprintf("%s of %d writers, %d rows, triggers %s", commits, k.Writers, rows, state), Of: k, Than: k}
		g.Than.State = triggersOff
		all = append(all, g)
	}
	return all
}

// plain is the key of our first plainer form, if there is one.
func (b *bench) plain(k func(variant string) Key) Key {
	for _, v := range b.variants {
		if v.name != ours && !v.peer {
			return k(v.name)
		}
	}
	return Key{}
}
