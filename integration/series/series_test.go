package series

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// record returns a run with one judged series: 240 samples, 5 s apart, 240 s of warm-up, allowed growth 10 % or 2.
func record(value func(k int) float64) *Record {
	s := &Series{Name: "memory", Unit: "MiB", Limit: &Limit{Share: 0.1, Absolute: 2}}
	r := &Record{Title: "a run of <20 min>", WarmUp: 240 * time.Second, Series: []*Series{s}}
	for k := range 240 {
		r.Times = append(r.Times, time.Duration(k)*5*time.Second)
		s.Values = append(s.Values, value(k))
	}
	return r
}

func TestRising(t *testing.T) {
	t.Parallel()
	noise := rand.New(rand.NewPCG(1, 2))
	sawtooth := func(k int) float64 { return 30 + float64(k%7)*3 } // a heap between two collections
	for _, c := range []struct {
		name   string
		value  func(k int) float64
		rising bool
	}{
		{"flat", func(int) float64 { return 50 }, false},
		{"zero", func(int) float64 { return 0 }, false},
		{"rising", func(k int) float64 { return 50 + 0.1*float64(k) }, true},
		{"falling", func(k int) float64 { return 50 - 0.1*float64(k) }, false},
		{"from zero", func(k int) float64 { return 0.1 * float64(k) }, true},
		{"noisy and flat", func(int) float64 { return 50 + 10*noise.NormFloat64() }, false},
		{"noisy and rising", func(k int) float64 { return 50 + 0.1*float64(k) + 5*noise.NormFloat64() }, true},
		{"a sawtooth", sawtooth, false},
		{"a rising sawtooth", func(k int) float64 { return sawtooth(k) + 0.05*float64(k) }, true},
		{"a step during the warm-up", func(k int) float64 { return 50 + 30*math.Min(float64(k)/40, 1) }, false},
		{"steps, as a leak of whole pages", func(k int) float64 { return 50 + 5*float64(k/50) }, true},
		{"one outlier", func(k int) float64 { return 50 + 1000*float64(k/239) }, false},
		{"a rise below the share", func(k int) float64 { return 500 + 0.1*float64(k) }, false},
		{"a sure rise below the absolute limit", func(k int) float64 { return 1 + 0.005*float64(k) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rising, enough := record(c.value).Rising()
			if !enough {
				t.Fatal("too short, want a judgement")
			}
			harness.Equal(t, len(rising) > 0, c.rising, "rising", rising)
		})
	}
}

func TestRisingSaysWhenARunIsTooShort(t *testing.T) {
	t.Parallel()
	r := record(func(k int) float64 { return float64(k) })
	r.WarmUp = time.Duration(240-Fewest+1) * 5 * time.Second
	if rising, enough := r.Rising(); enough || rising != nil {
		t.Errorf("got %q, %v of %d samples, want no judgement", rising, enough, Fewest-1)
	}
	r.WarmUp -= 5 * time.Second
	if rising, enough := r.Rising(); !enough || len(rising) != 1 {
		t.Errorf("got %q, %v of %d samples, want a judgement", rising, enough, Fewest)
	}
}

func TestRisingPassesOverWhatIsNotJudged(t *testing.T) {
	t.Parallel()
	r := record(func(k int) float64 { return float64(k) })
	r.Series[0].Limit = nil
	if rising, _ := r.Rising(); rising != nil {
		t.Errorf("got %q, want nothing", rising)
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	got := fit([]float64{0, 10, 20, 30, 40}, []float64{1, 2, 3, 100, 5})
	// Slopes: nine pairs give 0.1 per second or are bent by the outlier; the score is 8 of 10, its variance 5*4*15/18.
	want := Trend{Level: 3, Slope: 0.1, Rise: 4, Z: 7 / math.Sqrt(300.0/18)}
	if math.Abs(got.Slope-want.Slope) > 1e-9 || math.Abs(got.Rise-want.Rise) > 1e-9 || math.Abs(got.Z-want.Z) > 1e-9 || got.Level != want.Level {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	r := record(func(k int) float64 { return 50 + 0.1*float64(k) })
	r.Series[0].Start, r.Series[0].End = math.NaN(), 12
	want := "| | start | median | highest | end | trend |\n| --- | ---: | ---: | ---: | ---: | ---: |\n" +
		"| memory | – | 64.3 MiB | 73.9 MiB | 12 MiB | +19.1 MiB (+29.7 %) |\n"
	harness.Equal(t, r.Markdown(), want)
}

func TestWriteCSV(t *testing.T) {
	t.Parallel()
	r := &Record{Times: []time.Duration{0, 1500 * time.Millisecond}, Series: []*Series{
		{Name: "memory", Unit: "MiB", Values: []float64{1.25, 2}}, {Name: "streams", Values: []float64{3, 4}}}}
	var got bytes.Buffer
	harness.NoError(t, r.WriteCSV(&got))
	harness.Equal(t, got.String(), "seconds,\"memory, MiB\",streams\n0.0,1.25,3\n1.5,2,4\n")
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]string{
		0: "0", 3: "3", 131: "131", 16334: "16334", 123.4: "123", 36.12: "36.1", 4.654: "4.65", 0.0864: "0.086", 9.5367e-05: "0.000095", -2.889: "-2.89",
	} {
		harness.Equal(t, number(value), want, value)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0", 15 * time.Second: "15 s", time.Minute: "60 s", 4 * time.Minute: "4 min", 20 * time.Minute: "20 min",
		2 * time.Hour: "2 h", 200 * time.Second: "3m20s",
	} {
		harness.Equal(t, Clock(d), want, d)
	}
}

func TestWriteSVGIsWellFormed(t *testing.T) {
	t.Parallel()
	whole := record(func(k int) float64 { return float64(k % 9) })
	zero := record(func(int) float64 { return 0 })
	empty := &Record{Title: "nothing", Series: []*Series{{Name: "none"}}}
	for _, r := range []*Record{whole, zero, empty} {
		var got bytes.Buffer
		harness.NoError(t, r.WriteSVG(&got))
		harness.WellFormed(t, got.String())
	}
}
