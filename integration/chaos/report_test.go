package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is what a run comes to.
type report struct {
	schedule  schedule
	took      time.Duration
	faults    map[faultKind]int
	writes    map[writeKind]int
	excused   int // writes that failed because PostgreSQL was down
	clients   map[clientStyle]int
	events    int
	attempts  int
	staleness map[string][]time.Duration // by the fault that allowed it
	calm      []time.Duration            // writes without any fault, sorted
	faulty    []time.Duration            // writes during faults of anything but PostgreSQL, sorted
}

// stale notes how late a change was seen. Where nobody was looking, that says nothing.
func (r *report) stale(cause string, late time.Duration) {
	if cause == stopped {
		return
	}
	r.staleness[cause] = append(r.staleness[cause], late)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

// Markdown is the report as docs/reliability.md quotes it.
func (r *report) Markdown() string {
	var b strings.Builder
	clients := 0
	for _, n := range r.clients {
		clients += n
	}
	fmt.Fprintf(&b, "%v of faults (%v in all) with seed %d: %d events delivered to %d clients, which connected %d times.\n\n",
		r.schedule.duration, r.took.Round(time.Second), r.schedule.seed, r.events, clients, r.attempts)
	b.WriteString("| staleness because of | injected | changes seen | median | longest |\n| --- | ---: | ---: | ---: | ---: |\n")
	causes := slices.Sorted(maps.Keys(r.staleness))
	for kind := range r.faults {
		if !slices.Contains(causes, string(kind)) {
			causes = append(causes, string(kind))
		}
	}
	slices.Sort(causes)
	for _, cause := range causes {
		late := r.staleness[cause]
		slices.Sort(late)
		injected := ""
		if n := r.faults[faultKind(cause)]; n > 0 {
			injected = fmt.Sprint(n)
		}
		median, longest := "", ""
		if len(late) > 0 {
			median, longest = inMs(quantile(late, 0.5)), inMs(late[len(late)-1])
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %s |\n", cause, injected, len(late), median, longest)
	}
	b.WriteString("\n| the application's writes | |\n| --- | ---: |\n")
	for _, kind := range slices.Sorted(maps.Keys(r.writes)) {
		fmt.Fprintf(&b, "| %s | %d |\n", kind, r.writes[kind])
	}
	fmt.Fprintf(&b, "| failed while PostgreSQL was down | %d |\n", r.excused)
	fmt.Fprintf(&b, "| update, median / 99 %% / longest, without a fault | %s / %s / %s |\n", inMs(quantile(r.calm, 0.5)), inMs(quantile(r.calm, 0.99)), inMs(quantile(r.calm, 1)))
	fmt.Fprintf(&b, "| update, median / 99 %% / longest, during faults of anything but PostgreSQL | %s / %s / %s |\n", inMs(quantile(r.faulty, 0.5)), inMs(quantile(r.faulty, 0.99)), inMs(quantile(r.faulty, 1)))
	return b.String()
}

func inMs(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// compact is what a client saw, a line an attempt, as far as it fits.
func (c *chaosClient) compact() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %d (%s, %s, slot %d):", c.n, c.style, c.user, c.slot.n)
	next := 0
	for k, a := range c.attempts {
		fmt.Fprintf(&b, "\n  %s #%d audit %d instance %d", clock(a.tried), k, a.audit, a.instance)
		if a.lastEventID != "" {
			fmt.Fprintf(&b, " after %.6s", a.lastEventID)
		}
		for ; next < len(c.sightings) && c.sightings[next].attempt == k; next++ {
			s := c.sightings[next]
			what := fmt.Sprintf("v%d", s.n)
			if s.kind != shown || s.n == 0 {
				what = s.text
			}
			fmt.Fprintf(&b, " %s=%s", s.at.Format("05.000"), what)
		}
		fmt.Fprintf(&b, " %s:%s", a.ended.Format("05.000"), a.outcome)
	}
	return b.String()
}
