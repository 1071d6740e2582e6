package bench

import (
	"math"
	"slices"
)

// Key names one measured quantity.
type Key struct {
	Measure string `json:"measure"`
	Unit    string `json:"unit"`
	Variant string `json:"variant"`
	State   string `json:"state,omitempty"` // of the triggers, where writers were measured
	Streams int    `json:"streams,omitempty"`
	Rows    int    `json:"rows,omitempty"`
	Writers int    `json:"writers,omitempty"`
}

// Figure is what the rounds measured of it.
type Figure struct {
	Key
	Rounds []float64 `json:"rounds"`
}

// Figures are in the order in which they were first measured.
type Figures struct {
	List []*Figure `json:"figures"`
}

// Add appends a round's value.
func (f *Figures) Add(k Key, value float64) {
	if i := f.index(k); i >= 0 {
		f.List[i].Rounds = append(f.List[i].Rounds, value)
		return
	}
	f.List = append(f.List, &Figure{Key: k, Rounds: []float64{value}})
}

// Median is NaN when nothing was measured.
func (f *Figures) Median(k Key) float64 {
	i := f.index(k)
	if i < 0 {
		return math.NaN()
	}
	return Quantile(slices.Clone(f.List[i].Rounds), 0.5)
}

func (f *Figures) index(k Key) int {
	return slices.IndexFunc(f.List, func(have *Figure) bool { return have.Key == k })
}

// Quantile sorts the values. It interpolates, so that the median of two is their mean; of none it is NaN.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	at := q * float64(len(values)-1)
	low := int(at)
	high := min(low+1, len(values)-1)
	return values[low] + (values[high]-values[low])*(at-float64(low))
}
