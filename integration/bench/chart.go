package bench

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Chart is a drawing of bars: a panel for each measure.
type Chart struct {
	Title, Note string
	Panels      []Panel
}

// Panel is one measure. Bars that were not measured are left out.
type Panel struct {
	Title string // with its unit
	Bars  []Bar
	Limit float64 // the goal; 0: none
}

// Bar is one value; ours is set off from those it is compared to.
type Bar struct {
	Label string
	Value *float64
	Ours  bool
}

// Sizes, in pixels.
const (
	panelsAcross = 2
	panelWidth   = 480
	chartHead    = 62
	panelHead    = 40
	barHeight    = 20
	barStep      = 27
	barLeft      = 150
	barLength    = 240
)

const chartStyle = `text{font:12px system-ui,sans-serif;fill:#475569}.title{font-size:17px;font-weight:600;fill:#0f172a}` +
	`.name{font-size:13px;font-weight:600;fill:#0f172a}.label{text-anchor:end}.ours{fill:#2563eb}.other{fill:#cbd5e1}` +
	`.limit{stroke:#dc2626;stroke-width:1.5;stroke-dasharray:5 4}`

// WriteSVG draws the chart. The axis of each panel starts at zero.
func (c Chart) WriteSVG(w io.Writer) error {
	most := 0
	for _, p := range c.Panels {
		most = max(most, len(p.measured()))
	}
	panelHeight := panelHead + most*barStep + 18
	rows := (len(c.Panels) + panelsAcross - 1) / panelsAcross
	width, height := panelsAcross*panelWidth, chartHead+rows*panelHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", html.EscapeString(c.Title), chartStyle)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text class="title" x="20" y="27">%s</text>`+"\n", html.EscapeString(c.Title))
	fmt.Fprintf(&b, `<text x="20" y="46">%s</text>`+"\n", html.EscapeString(c.Note))
	for k, p := range c.Panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", k%panelsAcross*panelWidth, chartHead+k/panelsAcross*panelHeight)
		p.write(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write drawing: %w", err)
	}
	return nil
}

func (p Panel) measured() []Bar {
	var bars []Bar
	for _, bar := range p.Bars {
		if bar.Value != nil {
			bars = append(bars, bar)
		}
	}
	return bars
}

func (p Panel) write(b *strings.Builder) {
	fmt.Fprintf(b, `<text class="name" x="20" y="22">%s</text>`+"\n", html.EscapeString(p.Title))
	bars := p.measured()
	top := p.Limit
	for _, bar := range bars {
		top = max(top, *bar.Value)
	}
	if top <= 0 {
		top = 1
	}
	for k, bar := range bars {
		y := panelHead + k*barStep
		class := "other"
		if bar.Ours {
			class = "ours"
		}
		length := barLength * max(*bar.Value, 0) / top
		fmt.Fprintf(b, `<text class="label" x="%d" y="%d">%s</text>`, barLeft-8, y+14, html.EscapeString(bar.Label))
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`, class, barLeft, y, length, barHeight)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", barLeft+length+6, y+14, html.EscapeString(Number(*bar.Value)))
	}
	if p.Limit > 0 && len(bars) > 0 {
		x := barLeft + barLength*p.Limit/top
		fmt.Fprintf(b, `<line class="limit" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+"\n", x, x, panelHead-6, panelHead+len(bars)*barStep)
	}
}
