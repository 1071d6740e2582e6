// Package series keeps what a long run measures of a process, judges whether any of it grows, and draws it.
//
// It belongs to no part of the program: it stands apart from the soak test so that its judgement has tests of its own.
// The one rule: a number is judged, drawn and printed from the same samples.
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
	Times  []time.Duration // since the load began
	WarmUp time.Duration   // samples before it are drawn but not judged
	Series []*Series
}

// Series is one measured quantity.
type Series struct {
	Name   string
	Unit   string    // empty: it is a count
	Values []float64 // none: it was measured at rest alone
	// Start and End were measured at rest, before the load and after it. They are NaN where rest says nothing.
	Start, End float64
	// Limit is the growth that is allowed; nil: the series is shown for what it tells of the load, and not judged.
	Limit *Limit
}

// Limit is the growth over a run up to which a series counts as level: whichever of the two is more.
type Limit struct {
	Share    float64 // of the series' median
	Absolute float64 // in its unit
}

// sampled leaves out the series that were measured at rest alone.
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

// load is the judged part of a series: what was sampled after the warm-up.
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

// WriteCSV writes all samples, a line for each time.
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
