package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// judge checks every recorded event of every client against what the application committed.
type judge struct {
	ledger   *ledger
	faults   []window // of all instances, the times without LISTEN included
	control  *control
	replicas []*replica
	heard    []listening // by instance
	report   *report
	ids      map[string]string // the state that an event id stands for
}

// verdict is what is wrong with one client.
type verdict struct {
	client *chaosClient
	wrong  []string
}

func (v *verdict) add(at time.Time, format string, args ...any) {
	v.wrong = append(v.wrong, clock(at)+" "+fmt.Sprintf(format, args...))
}

func (j *judge) client(c *chaosClient) []string {
	v := &verdict{client: c}
	j.attempts(v)
	audits := make(map[int64][]seen)
	for _, s := range c.sightings {
		audit := c.attempts[s.attempt].audit
		audits[audit] = append(audits[audit], j.sighting(v, s, audits[audit]))
	}
	windows := j.windows(c)
	for audit, all := range audits {
		j.order(v, audit, all)
		j.lateness(v, audit, all, windows)
	}
	j.last(v)
	return v.wrong
}

// seen is a sighting with the versions it can be about: one for a state, and for a refusal any one that explains it.
type seen struct {
	sighting
	least, most int
}

// sighting checks one event by itself: the client was told nothing but a committed version, with all its fields, while
// that could be the current one, or a refusal while there was a version to refuse.
func (j *judge) sighting(v *verdict, s sighting, before []seen) seen {
	c, a := v.client, v.client.attempts[s.attempt]
	h := j.ledger.audits[a.audit]
	from := a.tried
	if s.kind == shown && s.text == "204" {
		if len(before) == 0 || before[len(before)-1].id != s.id {
			v.add(s.at, "204, but the last event of audit %d had another id", a.audit)
			return seen{sighting: s}
		}
		s.n = before[len(before)-1].n
	}
	if s.kind == shown {
		version, ok := h.find(s.n)
		switch want := version.row.text(c.feed, a.audit); {
		case !ok || version.gone || version.sent.After(s.at):
			v.add(s.at, "audit %d: v%d was not committed: %s", a.audit, s.n, s.text)
		case version.row.owner != c.user:
			v.add(s.at, "audit %d: v%d is %s's, and was shown to %s", a.audit, s.n, version.row.owner, c.user)
		case s.text == "204":
			if !version.row.terminal() {
				v.add(s.at, "audit %d: 204, but v%d is not terminal", a.audit, s.n)
			}
		case s.text != want:
			v.add(s.at, "audit %d: v%d shown as %s, committed as %s", a.audit, s.n, s.text, want)
		case j.ids[s.id] == "":
			j.ids[s.id] = s.text
		case j.ids[s.id] != s.text:
			v.add(s.at, "the id %s is that of two states: %s and %s", s.id, s.text, j.ids[s.id])
		}
		return seen{s, s.n, s.n}
	}
	result := seen{sighting: s}
	for _, version := range h.during(from, s.at) {
		about := version.gone
		if s.kind == denied {
			about = !version.gone && version.row.owner != c.user
		}
		if about {
			if result.least == 0 {
				result.least = version.n
			}
			result.most = version.n
		}
	}
	if result.least == 0 {
		v.add(s.at, "audit %d: %q, but that was so at no time since the request", a.audit, s.text)
	}
	return result
}

// order checks that nothing goes back, within a stream and across all of a client's streams of an audit, that a stream
// shows no state twice, and that each begins with the newest state there was when it was asked for.
func (j *judge) order(v *verdict, audit int64, all []seen) {
	newest := 0 // what the client has surely been told of so far
	for k, s := range all {
		first := k == 0 || all[k-1].attempt != s.attempt
		committed := j.ledger.audits[audit].newestAt(v.client.attempts[s.attempt].tried)
		switch {
		case s.most == 0: // wrong by itself, and said so
		case s.most < newest:
			v.add(s.at, "audit %d: went back from v%d to v%d", audit, newest, s.most)
		case first && s.most < committed:
			v.add(s.at, "audit %d: the stream began with v%d, when v%d was committed before it was asked for", audit, s.most, committed)
		case !first && s.kind == shown && s.n == newest:
			v.add(s.at, "audit %d: v%d was sent twice on one stream", audit, s.n)
		}
		newest = max(newest, s.least)
	}
}

// lateness checks when each version arrived, or a later one that took its place.
func (j *judge) lateness(v *verdict, audit int64, all []seen, windows []window) {
	c := v.client
	watching, until := c.attempts[all[0].attempt].answered, time.Time{}
	for _, a := range c.attempts {
		if a.audit == audit {
			until = a.ended
		}
	}
	for _, version := range j.ledger.audits[audit].versions {
		if version.acked.Before(watching) {
			continue
		}
		k := slices.IndexFunc(all, func(s seen) bool { return s.most >= version.n })
		deadline, cause := due(version.acked, windows)
		if k < 0 {
			if deadline.Add(slack).Before(until) && c.style != styleSlow {
				v.add(deadline, "audit %d: v%d, committed at %s, was not shown, due to %s", audit, version.n, clock(version.acked), cause)
			}
			continue
		}
		late := max(0, all[k].at.Sub(version.acked))
		if c.style == styleSlow {
			j.report.stale("slow reader's own pace", late)
			continue
		}
		j.report.stale(blame(cause, version.acked, all[k].at, windows), late)
		if all[k].at.After(deadline.Add(slack)) {
			v.add(all[k].at, "audit %d: v%d was shown %v after its commit at %s; allowed are %v because of: %s", audit, version.n,
				late.Round(time.Millisecond), clock(version.acked), deadline.Sub(version.acked).Round(time.Millisecond), cause)
		}
	}
}

// blame names the fault for the report: also one that was over so soon that no bound needed to be wider for it.
func blame(cause string, from, to time.Time, windows []window) string {
	if cause != noFault {
		return cause
	}
	for _, w := range windows {
		if w.overlaps(from, to) {
			return w.cause
		}
	}
	return noFault
}

// last checks that the client ends with the final state of its slot's audit, or was told the reason why not.
func (j *judge) last(v *verdict) {
	c := v.client
	final := c.slot.h.current()
	if len(c.sightings) == 0 {
		v.add(time.Now(), "saw nothing at all")
		return
	}
	s := c.sightings[len(c.sightings)-1]
	audit, want := c.attempts[s.attempt].audit, shown
	switch {
	case final.gone:
		want = gone
	case final.row.owner != c.user:
		want = denied
	}
	n := s.n
	if s.text == "204" { // checked to follow the state that it confirms
		n = final.n
	}
	if audit != c.slot.h.audit || s.kind != want || (want == shown && n != final.n) {
		v.add(s.at, "ends with v%d %s of audit %d, want v%d of audit %d: %s", s.n, strconv.Quote(s.text), audit, final.n, c.slot.h.audit, final.row.status)
	}
}
