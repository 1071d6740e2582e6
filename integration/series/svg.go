package series

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"time"
)

// Sizes of the drawing, in pixels: panels in two columns.
const (
	columns     = 2
	panelWidth  = 480
	panelHeight = 196
	headHeight  = 56
	plotLeft    = 70 // within a panel
	plotTop     = 44
	plotWidth   = panelWidth - plotLeft - 26
	plotHeight  = panelHeight - plotTop - 38
)

const style = `text{font:12px system-ui,sans-serif;fill:#475569}.title{font-size:17px;font-weight:600;fill:#0f172a}` +
	`.name{font-size:13px;font-weight:600;fill:#0f172a}.value{text-anchor:end}.time{text-anchor:middle}` +
	`.grid{stroke:#e2e8f0}.line{fill:none;stroke:#2563eb;stroke-width:1.5;stroke-linejoin:round}` +
	`.warm{fill:#f1f5f9}.trend{stroke:#dc2626;stroke-width:1.5;stroke-dasharray:5 4}`

// WriteSVG draws a panel for each series: on the left its lowest and highest value and its median after the warm-up, below the time, the warm-up
// shaded, and the trend as a broken line.
func (r *Record) WriteSVG(w io.Writer) error {
	sampled := r.sampled()
	rows := (len(sampled) + columns - 1) / columns
	width, height := columns*panelWidth, headHeight+rows*panelHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", html.EscapeString(r.Title), style)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text class="title" x="20" y="27">%s</text>`+"\n", html.EscapeString(r.Title))
	fmt.Fprintf(&b, `<text x="20" y="46">%d samples. Marked: least, median, highest. Shaded: warm-up. Broken line: trend after it.</text>`+"\n", len(r.Times))
	for k, s := range sampled {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", k%columns*panelWidth, headHeight+k/columns*panelHeight)
		r.panel(&b, s)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write drawing: %w", err)
	}
	return nil
}

func (r *Record) panel(b *strings.Builder, s *Series) {
	fmt.Fprintf(b, `<text class="name" x="20" y="22">%s</text>`+"\n", html.EscapeString(s.label()))
	end := max(r.Times[len(r.Times)-1], time.Second)
	low, high := slices.Min(s.Values), slices.Max(s.Values)
	// The axis starts at zero, so that a level series looks level and a slope does not look larger than it is.
	top := high
	if top <= 0 {
		top = 1
	}
	x := func(at float64) float64 { return plotLeft + plotWidth*at/end.Seconds() }
	y := func(value float64) float64 { return plotTop + plotHeight*(1-max(value, 0)/top) }

	fmt.Fprintf(b, `<rect class="warm" x="%d" y="%d" width="%.1f" height="%d"/>`+"\n", plotLeft, plotTop, x(min(r.WarmUp, end).Seconds())-plotLeft, plotHeight)
	r.valueAxis(b, s, low, high, y)
	for _, at := range ticks(end) {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x(at.Seconds()), x(at.Seconds()), plotTop+plotHeight, plotTop+plotHeight+4)
		fmt.Fprintf(b, `<text class="time" x="%.1f" y="%d">%s</text>`+"\n", x(at.Seconds()), plotTop+plotHeight+18, Clock(at))
	}
	b.WriteString(`<polyline class="line" points="`)
	for k, value := range s.Values {
		fmt.Fprintf(b, "%.1f,%.1f ", x(r.Times[k].Seconds()), y(value))
	}
	b.WriteString(`"/>` + "\n")
	if seconds, values := r.load(s); s.Limit != nil && len(values) >= Fewest {
		t := fit(seconds, values)
		from, to := seconds[0], seconds[len(seconds)-1]
		fmt.Fprintf(b, `<line class="trend" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n",
			x(from), y(t.Level-t.Rise/2), x(to), y(t.Level+t.Rise/2))
		fmt.Fprintf(b, `<text class="value" x="%d" y="22">%s</text>`+"\n", plotLeft+plotWidth, html.EscapeString(s.trend(t)))
	}
}

// valueAxis marks the lowest value, the highest and the median, and moves labels that would touch.
func (r *Record) valueAxis(b *strings.Builder, s *Series, low, high float64, y func(float64) float64) {
	fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%d" y2="%d"/>`+"\n", plotLeft, plotLeft+plotWidth, plotTop+plotHeight, plotTop+plotHeight)
	const lineHeight = 13.0
	free := float64(plotTop + plotHeight + 4) // labels are placed from the bottom up
	last := -1.0
	_, values := r.load(s)
	for _, value := range []float64{low, min(max(median(values), low), high), high} {
		if value == last {
			continue
		}
		last = value
		at := y(value)
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, plotLeft, plotLeft+plotWidth, at, at)
		label := min(at+4, free)
		free = label - lineHeight
		fmt.Fprintf(b, `<text class="value" x="%d" y="%.1f">%s</text>`+"\n", plotLeft-6, label, html.EscapeString(number(value)))
	}
}

// ticks returns round times, nine at most.
func ticks(end time.Duration) []time.Duration {
	step := time.Second
	for _, step = range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 24 * time.Hour} {
		if end/step <= 8 {
			break
		}
	}
	var all []time.Duration
	for at := time.Duration(0); at <= end; at += step {
		all = append(all, at)
	}
	return all
}

// Clock writes a duration for people.
func Clock(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d <= 2*time.Minute && d%time.Second == 0:
		return fmt.Sprintf("%d s", d/time.Second)
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return d.Round(time.Second).String()
}
