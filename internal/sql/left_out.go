package sql

import (
	"fmt"
	"slices"
	"strings"
)

// leftOut returns the values of repeatable options of the last install that are not in effect any more, because others of the option were
// given now.
func (i *installation) leftOut(o Options) []string {
	if i.chosen == nil {
		return nil
	}
	c := i.chosen.Options
	var all []string
	for _, w := range c.Words {
		if !slices.ContainsFunc(o.Words, func(now Word) bool { return now.Source == w.Source && now.Stored == w.Stored }) {
			all = append(all, "--status "+ShellQuote(strings.TrimPrefix(w.Source+"="+w.Stored+"="+w.Shown, "=")))
		}
	}
	for _, list := range []struct {
		option      string
		before, now []string
	}{{"--ends ", c.Ends, o.Ends}, {"--field ", c.Fields, o.Fields}, {"--lookup ", c.Lookups, o.Lookups}, {"--ring ", c.Rings, o.Rings}} {
		for _, text := range list.before {
			// FIELD=a in place of FIELD=b is a change, and leaves nothing out.
			name, _, _ := strings.Cut(text, "=")
			if !slices.ContainsFunc(list.now, func(now string) bool { return now == name || strings.HasPrefix(now, name+"=") }) {
				all = append(all, list.option+ShellQuote(text))
			}
		}
	}
	return all
}

// noteLeftOut notes them.
func (p *Plan) noteLeftOut(all []string) {
	if len(all) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("no longer in effect: %s; of an option that can be repeated, what is given replaces all of the last install: give these, too, to keep them", some(all)))
	}
}
