package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// alone and beside are states in which deliveries are measured; all others are of the triggers.
const (
	alone  = "alone"
	beside = "beside one who asks for all of theirs"
)

// Goal holds one figure against another of the same run, or against a limit. A limit of 0 is none.
type Goal struct {
	Name  string
	Of    Key
	Than  Key // the peer's; the zero Key: none
	Plain Key // our own plainer form's, shown beside them; the zero Key: none

	RatioAtMost, RatioAtLeast float64 // of Of to Than
	AtMost                    float64 // in the unit of Of
}

// Verdict is a goal with what was measured.
type Verdict struct {
	Name       string   `json:"name"`
	Unit       string   `json:"unit"`
	Measured   *float64 `json:"measured"` // nil: not measured
	Plain      *float64 `json:"plain,omitempty"`
	PlainName  string   `json:"plain_name,omitempty"`
	Compared   *float64 `json:"compared,omitempty"`
	ComparedTo string   `json:"compared_to,omitempty"`
	Ratio      *float64 `json:"ratio,omitempty"`
	Goal       string   `json:"goal,omitempty"`
	Met        string   `json:"met"` // yes, no, or why there is neither
}

// Judge evaluates a goal. One that could not be measured is not met.
func (f *Figures) Judge(g Goal) Verdict {
	v := Verdict{Name: g.Name, Unit: g.Of.Unit, Goal: g.text()}
	v.Measured = finite(f.Median(g.Of))
	if g.Plain != (Key{}) {
		v.PlainName, v.Plain = g.Plain.Variant, finite(f.Median(g.Plain))
	}
	if g.Than != (Key{}) {
		v.ComparedTo, v.Compared = g.Than.besides(g.Of), finite(f.Median(g.Than))
	}
	if v.Measured != nil && v.Compared != nil {
		v.Ratio = finite(*v.Measured / *v.Compared)
	}
	v.Met = v.met(g)
	return v
}

func (v Verdict) met(g Goal) string {
	relative := g.RatioAtMost > 0 || g.RatioAtLeast > 0
	switch {
	case v.Measured == nil:
		return "not measured"
	case !relative && g.AtMost == 0:
		return "–"
	case g.AtMost > 0 && *v.Measured > g.AtMost:
		return "no"
	case relative && v.Ratio == nil:
		return "not compared"
	case g.RatioAtMost > 0 && *v.Ratio > g.RatioAtMost, g.RatioAtLeast > 0 && *v.Ratio < g.RatioAtLeast:
		return "no"
	}
	return "yes"
}

func (g Goal) text() string {
	var parts []string
	if g.AtMost > 0 {
		parts = append(parts, "at most "+Number(g.AtMost)+" "+g.Of.Unit)
	}
	if g.RatioAtMost > 0 {
		parts = append(parts, "at most "+Number(g.RatioAtMost)+" x")
	}
	if g.RatioAtLeast > 0 {
		parts = append(parts, "at least "+Number(g.RatioAtLeast)+" x")
	}
	return strings.Join(parts, ", ")
}

// besides says in what a key differs from another.
func (k Key) besides(other Key) string {
	switch {
	case k.State == alone:
		return alone
	case k.State != other.State:
		return "triggers " + k.State
	case k.Rows != other.Rows:
		return strconv.Itoa(k.Rows) + " rows"
	}
	return k.Variant
}

// Markdown is the verdicts as a table for people.
func Markdown(verdicts []Verdict) string {
	var b strings.Builder
	b.WriteString("| measure | auditstream | plainer form | compared to | ratio | goal | met |\n| --- | ---: | ---: | ---: | ---: | --- | --- |\n")
	for _, v := range verdicts {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", v.Name, quantity(v.Measured, v.Unit), named(v.Plain, v.PlainName),
			named(v.Compared, v.ComparedTo), shown(v.Ratio), v.Goal, v.Met)
	}
	return b.String()
}

func quantity(value *float64, unit string) string {
	if value == nil {
		return ""
	}
	return strings.TrimSpace(Number(*value) + " " + unit)
}

func named(value *float64, name string) string {
	if value == nil {
		return ""
	}
	return shown(value) + " (" + name + ")"
}

func shown(value *float64) string {
	if value == nil {
		return ""
	}
	return Number(*value)
}

// Number has three significant digits.
func Number(value float64) string {
	if math.Abs(value) >= 100 {
		return strconv.FormatFloat(math.Round(value), 'f', -1, 64)
	}
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 3, 64), 64) // it was written by the same package
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

func finite(value float64) *float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil
	}
	return &value
}
