package series

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Markdown returns the run as a table. Start and end are at rest. Median, highest and trend are under load after the warm-up; the trend is the
// growth over that time.
func (r *Record) Markdown() string {
	var b strings.Builder
	b.WriteString("| | start | median | highest | end | trend |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
	for _, s := range r.Series {
		seconds, values := r.load(s)
		middle, highest, trend := "–", "–", "–" // not measured, not judged, or too short
		if len(values) > 0 {
			middle, highest = s.format(median(values)), s.format(slices.Max(values))
		}
		if s.Limit != nil && len(values) >= Fewest {
			trend = s.trend(fit(seconds, values))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", s.Name, s.format(s.Start), middle, highest, s.format(s.End), trend)
	}
	return b.String()
}

func (s *Series) trend(t Trend) string {
	rise := s.format(t.Rise)
	if t.Rise >= 0 {
		rise = "+" + rise
	}
	if t.Level == 0 {
		return rise
	}
	return fmt.Sprintf("%s (%+.1f %%)", rise, 100*t.Rise/math.Abs(t.Level))
}

// format writes a value with its unit: with two or three digits, or all digits before the decimal point.
func (s *Series) format(value float64) string {
	if math.IsNaN(value) {
		return "–"
	}
	text := number(value)
	if s.Unit == "" {
		return text
	}
	return text + " " + s.Unit
}

func number(value float64) string {
	size := math.Abs(value)
	decimals := 0
	switch {
	case size == math.Trunc(size) || size >= 100:
	case size >= 10:
		decimals = 1
	case size >= 1:
		decimals = 2
	default: // two digits, without an exponent
		rounded, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 2, 64), 64)
		if err != nil {
			rounded = value
		}
		return strconv.FormatFloat(rounded, 'f', -1, 64)
	}
	return strconv.FormatFloat(value, 'f', decimals, 64)
}
