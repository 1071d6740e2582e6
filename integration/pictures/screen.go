package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"time"
)

// Sizes of the drawing, in pixels.
const (
	lineHeight = 18
	margin     = 20
	// A column of the fonts below is 7.85 wide at 13 px; a wider one still ends within the margin.
	screenWidth = columns*785/100 + 2*margin
)

const (
	// longestWait is how long the drawing stands still at most while a program works: compiling and starting PostgreSQL took longer.
	longestWait = 700 * time.Millisecond
	// readingTime is how long it does before a command is typed, for which the recording needed no time at all.
	readingTime = 1500 * time.Millisecond
)

const screenStyle = `text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:#cbd5e1}` +
	`.typed{fill:#86efac;font-weight:600}.edge{stroke:#334155}` +
	`g{animation:appear 1ms backwards}@keyframes appear{from{visibility:hidden}}` +
	`@media(prefers-reduced-motion:reduce){g{animation:none}}`

// screen draws terminals below each other, in which the lines appear in the order in which they were said. Where nothing moves, all are there.
func screen(terminals []*terminal) []byte {
	var body strings.Builder
	when := moments(terminals)
	y := margin
	for n, t := range terminals {
		if n > 0 {
			fmt.Fprintf(&body, `<path class="edge" d="M0 %dH%d"/>`+"\n", y, screenWidth)
			y += margin
		}
		y = group(&body, y, when[t.opened], "typed", "$ "+t.command)
		for _, l := range t.lines {
			y = group(&body, y, when[l.at], "", l.text)
		}
		y += margin / 2
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" xml:space="preserve">
<title>make run, and the two lines that it prints, in terminals of their own</title>
<desc>Recorded by make pictures. Tokens, passwords and waits of more than %[3]d ms are shortened.</desc>
<style>%[4]s</style>
<rect width="%[1]d" height="%[2]d" rx="8" fill="#0f172a"/>
%[5]s</svg>
`, screenWidth, y, longestWait.Milliseconds(), screenStyle, body.String())
}

// group draws what appears at a moment, broken as a terminal does, and returns where the next begins.
func group(b *strings.Builder, y int, at time.Duration, class, text string) int {
	broken := []string{""}
	if chars := []rune(shortened(text)); len(chars) > 0 {
		broken = nil
		for part := range slices.Chunk(chars, columns) {
			broken = append(broken, string(part))
		}
	}
	for _, part := range broken {
		y += lineHeight
		if part == "" {
			continue
		}
		fmt.Fprintf(b, `<g style="animation-delay:%dms"><text x="%d" y="%d"`, at.Milliseconds(), margin, y-lineHeight/4)
		if class != "" {
			fmt.Fprintf(b, ` class="%s"`, class)
		}
		fmt.Fprintf(b, ">%s</text></g>\n", html.EscapeString(part))
	}
	return y
}

// moments says when in the drawing each moment of the recording is.
func moments(terminals []*terminal) map[time.Time]time.Duration {
	var all []time.Time
	typed := map[time.Time]bool{}
	for _, t := range terminals {
		all, typed[t.opened] = append(all, t.opened), true
		for _, l := range t.lines {
			all = append(all, l.at)
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	when, shown := map[time.Time]time.Duration{}, time.Duration(0)
	for n, at := range all {
		switch {
		case n == 0:
			shown = longestWait
		case typed[at]:
			shown += readingTime
		default:
			shown += min(at.Sub(all[n-1]), longestWait)
		}
		when[at] = shown
	}
	return when
}
