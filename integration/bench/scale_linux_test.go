package bench

import (
	"fmt"
	"os"
	"time"
)

// scale is how much is measured.
type scale struct {
	name    string
	peer    bool
	streams int
	audits  int // that are watched, and the rows of the table
	rounds  int
	settle  time.Duration

	load time.Duration
	rate float64 // updates a second

	fanOut     time.Duration
	fanOutRate float64

	writers []int
	write   time.Duration // below a second: 20 transactions of each writer

	connects int           // at once, whose reads are counted
	idle     time.Duration // whole seconds: ticks

	growth []int // further numbers of streams
	rows   []int // further numbers of rows
	bulk   int   // rows that one statement updates

	sessions int // whose first statement is measured
	firsts   int // streams whose first event is

	dashboards    int           // of 100 audits each; a multiple of users
	dashboardLoad time.Duration // longer than a round of the safety net, but where nothing is to be measured
	large         int           // rows of the table in which one asks for all of theirs
}

// scales: default is for the figures, quick is for trying, and tiny, which go test runs, only shows that all of it works.
var scales = map[string]scale{
	"default": {
		peer: true, streams: 9000, audits: 500, rounds: 3, settle: 1500 * time.Millisecond,
		load: 8 * time.Second, rate: 200, fanOut: 6 * time.Second, fanOutRate: 2,
		writers: []int{1, 8, 32}, write: 3 * time.Second, connects: 5000, idle: 5 * time.Second,
		growth: []int{1000, 3000, 18000}, rows: []int{50000}, bulk: 100000, sessions: 60, firsts: 2000,
		dashboards: 400, dashboardLoad: 12 * time.Second, large: 3_000_000,
	},
	"quick": {
		peer: true, streams: 500, audits: 50, rounds: 3, settle: 300 * time.Millisecond,
		load: 2 * time.Second, rate: 100, fanOut: time.Second, fanOutRate: 5,
		writers: []int{1, 32}, write: time.Second, connects: 500, idle: 2 * time.Second,
		growth: []int{1000}, rows: []int{5000}, bulk: 10000, sessions: 20, firsts: 500,
		dashboards: 40, dashboardLoad: 11 * time.Second, large: 300_000,
	},
	"tiny": {
		streams: 100, audits: 20, rounds: 1,
		load: 200 * time.Millisecond, rate: 100, fanOut: 100 * time.Millisecond, fanOutRate: 50,
		writers: []int{2}, connects: 100, idle: time.Second, growth: []int{200}, rows: []int{100}, bulk: 1000, sessions: 2, firsts: 128,
		dashboards: 20, dashboardLoad: 100 * time.Millisecond, large: 5000,
	},
}

// chosenScale is BENCH, or tiny. BENCH_PEER=nchan has the tiny one measure the peer too, none has no scale do it.
func chosenScale() (scale, error) {
	name := os.Getenv("BENCH")
	if name == "" {
		name = "tiny"
	}
	s, ok := scales[name]
	if !ok {
		return scale{}, fmt.Errorf("BENCH=%s is no scale; give default, quick or tiny", name)
	}
	s.name = name
	switch peer := os.Getenv("BENCH_PEER"); peer {
	case "":
	case nchan:
		s.peer = true
	case "none":
		s.peer = false
	default:
		return scale{}, fmt.Errorf("BENCH_PEER=%s is no peer; give %s or none", peer, nchan)
	}
	return s, nil
}
