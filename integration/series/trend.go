package series

import (
	"fmt"
	"math"
	"slices"
)

// Fewest is the number of samples below which a trend cannot be told from noise.
const Fewest = 60

// Trend is the straight line through a series that outliers do not bend: Theil and Sen's slope, which is the median of the slopes between all
// pairs of samples. Z is Mann and Kendall's score: how certain it is that the samples rise at all, in standard deviations.
type Trend struct {
	Level float64 // the median
	Slope float64 // per second
	Rise  float64 // the slope over the whole span
	Z     float64
}

// fit needs times in rising order and at least two samples.
func fit(seconds, values []float64) Trend {
	n := len(values)
	slopes := make([]float64, 0, n*(n-1)/2)
	score := 0.0
	for i := range values {
		for k := i + 1; k < n; k++ {
			slopes = append(slopes, (values[k]-values[i])/(seconds[k]-seconds[i]))
			switch {
			case values[k] > values[i]:
				score++
			case values[k] < values[i]:
				score--
			}
		}
	}
	t := Trend{Level: median(values), Slope: median(slopes)}
	t.Rise = t.Slope * (seconds[n-1] - seconds[0])
	if deviation := math.Sqrt(variance(values)); deviation > 0 && score != 0 {
		t.Z = (score - math.Copysign(1, score)) / deviation
	}
	return t
}

// variance returns the variance of Mann and Kendall's score, which is smaller when values repeat.
func variance(values []float64) float64 {
	weight := func(n float64) float64 { return n * (n - 1) * (2*n + 5) / 18 }
	v := weight(float64(len(values)))
	sorted := slices.Sorted(slices.Values(values))
	for from := 0; from < len(sorted); {
		to := from
		for to < len(sorted) && sorted[to] == sorted[from] {
			to++
		}
		v -= weight(float64(to - from))
		from = to
	}
	return v
}

// certain is the score from which on a rise counts: noise alone reaches it in one of a thousand runs. Samples that depend on their predecessors
// reach it more often, so a rise must also exceed the limit.
const certain = 3.1

// beyond reports whether the series grows by more than the limit allows.
func (t Trend) beyond(limit Limit) bool {
	return t.Z > certain && t.Rise > max(limit.Share*math.Abs(t.Level), limit.Absolute)
}

// Rising names each judged series that grows by more than its limit, with the figures. enough is false when the run is too short, so that
// nothing was judged.
func (r *Record) Rising() (rising []string, enough bool) {
	for _, s := range r.Series {
		if s.Limit == nil {
			continue
		}
		seconds, values := r.load(s)
		if len(values) < Fewest {
			return nil, false
		}
		if t := fit(seconds, values); t.beyond(*s.Limit) {
			rising = append(rising, fmt.Sprintf("%s grows: by %s in %.0f s, from a median of %s; %.0f %% or %s are allowed (Mann-Kendall %.1f)",
				s.Name, s.format(t.Rise), seconds[len(seconds)-1]-seconds[0], s.format(t.Level), 100*s.Limit.Share, s.format(s.Limit.Absolute), t.Z))
		}
	}
	return rising, true
}
