package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

func key(variant string) Key { return Key{Measure: "memory", Unit: "kB", Variant: variant} }

func measured(ours, peer float64) *Figures {
	f := new(Figures)
	f.Add(key("ours"), ours)
	f.Add(key("peer"), peer)
	return f
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		ours, peer float64
		goal       Goal
		met        string
	}{
		{"below both", 4, 16, Goal{AtMost: 8, RatioAtMost: 0.5}, "yes"},
		{"on both", 8, 16, Goal{AtMost: 8, RatioAtMost: 0.5}, "yes"},
		{"above the limit", 9, 100, Goal{AtMost: 8, RatioAtMost: 0.5}, "no"},
		{"above the ratio", 7, 8, Goal{AtMost: 8, RatioAtMost: 0.5}, "no"},
		{"at least the share", 86, 100, Goal{RatioAtLeast: 0.85}, "yes"},
		{"below the share", 84, 100, Goal{RatioAtLeast: 0.85}, "no"},
		{"no goal", 84, 100, Goal{}, "–"},
		{"a peer of nothing", 84, 0, Goal{RatioAtMost: 2}, "not compared"},
		{"not a number", math.NaN(), 1, Goal{RatioAtMost: 2}, "not measured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.goal.Of, c.goal.Than = key("ours"), key("peer")
			harness.Equal(t, measured(c.ours, c.peer).Judge(c.goal).Met, c.met)
		})
	}
}

func TestJudgeWithoutThePeer(t *testing.T) {
	t.Parallel()
	f := new(Figures)
	f.Add(key("ours"), 3)
	g := Goal{Of: key("ours"), Than: key("peer"), RatioAtMost: 1}
	harness.Equal(t, f.Judge(g).Met, "not compared")
	g.Of = key("none")
	harness.Equal(t, f.Judge(g).Met, "not measured")
}

func TestMedianOfRounds(t *testing.T) {
	t.Parallel()
	f := new(Figures)
	for _, v := range []float64{5, 1, 3} {
		f.Add(key("ours"), v)
	}
	harness.Equal(t, f.Median(key("ours")), 3)
	if got := f.List[0].Rounds; got[0] != 5 || got[1] != 1 || got[2] != 3 {
		t.Errorf("rounds %v, want the order of measuring", got)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	values := []float64{4, 2, 3, 1, 5}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 1: 5, 0.99: 4.96, 0.125: 1.5} {
		if got := Quantile(values, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v: got %v, want %v", q, got, want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want NaN", got)
	}
}

func TestComparedToSaysWhatIsDifferent(t *testing.T) {
	t.Parallel()
	of := Key{Variant: "ours", State: "on", Rows: 5}
	for want, than := range map[string]Key{
		"peer": {Variant: "peer", State: "on", Rows: 5}, "triggers off": {Variant: "ours", State: "off", Rows: 5}, "9 rows": {Variant: "ours", State: "on", Rows: 9},
	} {
		harness.Equal(t, new(Figures).Judge(Goal{Of: of, Than: than}).ComparedTo, want)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	f := measured(4.126, 16.5)
	f.Add(key("plain"), 28)
	v := f.Judge(Goal{Name: "memory a stream", Of: key("ours"), Than: key("peer"), Plain: key("plain"), AtMost: 8, RatioAtMost: 0.5})
	missing := f.Judge(Goal{Name: "other", Of: key("other")})
	want := "| measure | auditstream | plainer form | compared to | ratio | goal | met |\n| --- | ---: | ---: | ---: | ---: | --- | --- |\n" +
		"| memory a stream | 4.13 kB | 28 (plain) | 16.5 (peer) | 0.25 | at most 8 kB, at most 0.5 x | yes |\n" +
		"| other |  |  |  |  |  | not measured |\n"
	harness.Equal(t, Markdown([]Verdict{v, missing}), want)
}

func TestFiguresAsJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(measured(1, 2))
	harness.NoError(t, err)
	var back Figures
	harness.NoError(t, json.Unmarshal(b, &back))
	harness.Equal(t, back.Median(key("peer")), 2, "read back")
}

func TestChartIsWellFormed(t *testing.T) {
	t.Parallel()
	one, nothing := 3.5, 0.0
	whole := Chart{Title: "a <b>", Note: "1 & 2", Panels: []Panel{
		{Title: "memory, kB", Limit: 8, Bars: []Bar{{"ours", &one, true}, {"peer", nil, false}, {"other", &nothing, false}}},
		{Title: "nothing"},
	}}
	for _, c := range []Chart{whole, {}} {
		var got bytes.Buffer
		harness.NoError(t, c.WriteSVG(&got))
		harness.WellFormed(t, got.String())
	}
	var got bytes.Buffer
	harness.NoError(t, whole.WriteSVG(&got))
	harness.Equal(t, strings.Count(got.String(), `class="label"`), 2, "bars")
}
