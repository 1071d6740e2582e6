package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// report is what bench.json holds.
type report struct {
	Scale    string    `json:"scale"`
	Minutes  float64   `json:"minutes"`
	Machine  machine   `json:"machine"`
	Verdicts []Verdict `json:"verdicts"`
	Figures
	chart Chart
}

func (b *bench) report(m machine, took time.Duration) *report {
	r := &report{Scale: b.scale.name, Minutes: took.Minutes(), Machine: m, Figures: b.figures, chart: b.chart(m)}
	for _, g := range b.goals() {
		r.Verdicts = append(r.Verdicts, b.figures.Judge(g))
	}
	return r
}

// complete fails when something that should have been measured was not.
func (r *report) complete(t testing.TB) {
	t.Helper()
	for _, v := range r.Verdicts {
		if v.Measured == nil {
			t.Errorf("%s was not measured", v.Name)
		}
		if v.Compared == nil && v.ComparedTo != "" && (v.ComparedTo != nchan || r.Machine.Nginx != "") {
			t.Errorf("%s of %s was not measured", v.Name, v.ComparedTo)
		}
	}
}

func (r *report) markdown() string {
	return Markdown(r.Verdicts) + "\nMedians. " + r.Machine.String() + "\n"
}

func (r *report) write(t testing.TB, dir string) {
	t.Helper()
	data, err := json.MarshalIndent(r, "", "\t")
	harness.NoError(t, err)
	var drawing bytes.Buffer
	harness.NoError(t, r.chart.WriteSVG(&drawing))
	harness.WellFormed(t, drawing.String())
	harness.NoError(t, os.MkdirAll(dir, 0o755))
	for name, content := range map[string][]byte{"bench.json": append(data, '\n'), "bench.md": []byte(r.markdown()), "bench.svg": drawing.Bytes()} {
		harness.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
}

func (b *bench) chart(m machine) Chart {
	s := b.scale
	c := Chart{
		Title: fmt.Sprintf("%d streams of %d audits, %s updates a second; medians of %d rounds", s.streams, s.audits, Number(s.rate), s.rounds),
		Note:  m.String(),
	}
	for _, p := range []struct{ measure, unit string }{
		{rssLoaded, "kB"}, {deliveryCPU, "µs"}, {latencyMedian, "ms"}, {latency99, "ms"}, {connectTime, "s"}, {fanOut99, "ms"},
	} {
		panel := Panel{Title: p.measure + ", " + p.unit}
		for _, v := range b.variants {
			value := b.figures.Median(Key{Measure: p.measure, Unit: p.unit, Variant: v.name, Streams: s.streams, Rows: s.audits})
			panel.Bars = append(panel.Bars, Bar{v.name, finite(value), v.name == ours})
		}
		c.Panels = append(c.Panels, panel)
	}
	for _, v := range b.variants {
		if v.peer {
			continue
		}
		n := s.writers[len(s.writers)-1]
		panel := Panel{Title: fmt.Sprintf("%s: commits/s of %d writers", v.name, n)}
		for _, state := range triggerStates {
			of := v.name
			if state == triggersOff {
				of = ours // without triggers there is no difference
			}
			value := b.figures.Median(Key{Measure: commits, Unit: "/s", Variant: of, State: state, Rows: s.audits, Writers: n})
			panel.Bars = append(panel.Bars, Bar{state, finite(value), v.name == ours && state != triggersOff})
		}
		c.Panels = append(c.Panels, panel)
	}
	return c
}
