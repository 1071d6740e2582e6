// Package series keeps the measurements of a long run, judges whether any of them grows, and draws them.
//
// The rule that keeps it right: numbers are judged, drawn and printed from the same samples. Only the soak test uses it; it is a package of
// its own so that its judgement has tests. Files, in the order in which to read them: record.go, trend.go (the judgement), table.go,
// svg.go.
package series

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// Record is one run: several series, sampled at the same times.
type Record struct {
	Title  string
	Times  []time.Duration // since the beginning of the load
	WarmUp time.Duration   // samples before it are drawn but not judged
	Series []*Series
}

// Series is one measured quantity.
type Series struct {
	Name   string
	Unit   string    // empty: a count
	Values []float64 // none: it was measured only at rest
	// Start and End were measured at rest, before and after the load. They are NaN for a quantity that has no value at rest.
	Start, End float64
	// Limit is the allowed growth. nil means that the series is shown and not judged.
	Limit *Limit
}

// Limit is the growth over a run up to which a series counts as level: the larger of the two.
type Limit struct {
	Share    float64 // a part of the series' median
	Absolute float64 // in the series' unit
}

// sampled returns the series that were measured under load, too.
func (r *Record) sampled() []*Series {
	var all []*Series
	for _, s := range r.Series {
		if len(s.Values) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func (s *Series) label() string {
	if s.Unit == "" {
		return s.Name
	}
	return s.Name + ", " + s.Unit
}

// load returns the part of a series that is judged: the samples after the warm-up.
func (r *Record) load(s *Series) (seconds, values []float64) {
	if len(s.Values) == 0 {
		return nil, nil
	}
	for k, at := range r.Times {
		if at >= r.WarmUp {
			seconds = append(seconds, at.Seconds())
			values = append(values, s.Values[k])
		}
	}
	return seconds, values
}

// WriteCSV writes all samples, one line for each time.
func (r *Record) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	head := []string{"seconds"}
	for _, s := range r.sampled() {
		head = append(head, s.label())
	}
	rows := [][]string{head}
	for k, at := range r.Times {
		row := []string{strconv.FormatFloat(at.Seconds(), 'f', 1, 64)}
		for _, s := range r.sampled() {
			row = append(row, strconv.FormatFloat(s.Values[k], 'f', -1, 64))
		}
		rows = append(rows, row)
	}
	if err := out.WriteAll(rows); err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
