package main

import (
	"fmt"
	"html"
	"strings"
)

// Places of the drawing, in pixels: who takes part, from left to right.
var (
	actors = []string{"your application", "PostgreSQL", "auditstream", "browsers"}
	actorX = []int{110, 370, 640, 890}
)

const (
	application = iota
	database
	service
	browsers
)

// step is an arrow from one to another, or, from one to itself, a point on its line.
type step struct {
	from, to, y int
	text, note  string
}

var steps = []step{
	{application, database, 84, "UPDATE audits ...", "the trigger asks: is it watched?"},
	{application, database, 140, "COMMIT", "now it is true"},
	{database, service, 164, "NOTIFY '42'", "a key, and never the row"},
	{service, service, 206, "Hub: who watches 42?", "nobody: done"},
	{service, database, 252, "one SELECT for all waiting", ""},
	{database, service, 296, "the committed row", ""},
	{service, service, 334, "compare, encode once", "the newest state to each stream"},
	{service, browsers, 384, "still yours? an event", "data: {...}"},
}

const updateStyle = `text{fill:#222}.l{stroke:#999;stroke-dasharray:4 4}.a{stroke:#2563eb;stroke-width:2;fill:none;marker-end:url(#m)}` +
	`.b{fill:#eef4ff;stroke:#2563eb}.c{fill:#555;font-size:13px}rect.w{fill:#fff}` +
	`@media(prefers-color-scheme:dark){text{fill:#eee}.c{fill:#bbb}.b{fill:#1e2a44}rect.w{fill:#111}}`

// wayOfAnUpdate draws the steps of docs/how-it-works.md.
func wayOfAnUpdate() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 430" font-family="system-ui, sans-serif" font-size="14" role="img" aria-label="The way of an update">
<style>%s</style>
<defs><marker id="m" markerWidth="9" markerHeight="9" refX="8" refY="4.5" orient="auto"><path d="M0 0L9 4.5L0 9z" fill="#2563eb"/></marker></defs>
<rect class="w" width="1000" height="430"/>
`, updateStyle)
	for n, name := range actors {
		x := actorX[n]
		fmt.Fprintf(&b, `<line class="l" x1="%[1]d" y1="52" x2="%[1]d" y2="416"/><rect class="b" x="%[2]d" y="16" width="170" height="34" rx="6"/>`+
			`<text x="%[1]d" y="38" text-anchor="middle" font-weight="600">%[3]s</text>`+"\n", x, x-85, name)
	}
	for _, s := range steps {
		s.draw(&b)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func (s step) draw(b *strings.Builder) {
	from, to := actorX[s.from], actorX[s.to]
	if s.from == s.to {
		fmt.Fprintf(b, `<circle cx="%d" cy="%d" r="5" fill="#2563eb"/>`+"\n", from, s.y)
		s.label(b, "start", from+12, s.y-2, s.y+15)
		return
	}
	gap := 8 // between an arrow and the lines that it leads from and to
	if to < from {
		gap = -gap
	}
	fmt.Fprintf(b, `<path class="a" d="M%d %dH%d"/>`+"\n", from+gap, s.y, to-gap)
	s.label(b, "middle", (from+to)/2, s.y-7, s.y+17)
}

func (s step) label(b *strings.Builder, anchor string, x, textY, noteY int) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", x, textY, anchor, html.EscapeString(s.text))
	if s.note != "" {
		fmt.Fprintf(b, `<text class="c" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", x, noteY, anchor, html.EscapeString(s.note))
	}
}
