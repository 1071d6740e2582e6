package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// slowest is how many slow tests a report lists.
const slowest = 10

// event is one line of go test -json: https://pkg.go.dev/cmd/test2json
type event struct {
	Action     string
	Package    string
	ImportPath string // in build-output and build-fail
	Test       string // empty: the event is about the package
	Output     string
	Elapsed    float64 // in seconds
}

// A report collects the events of one go test. It is not safe for concurrent use.
type report struct {
	out      io.Writer
	args     []string
	packages map[string]*packageReport
	times    []timed
}

type packageReport struct {
	log    map[string]*strings.Builder // by test; without the tests that passed
	failed []string                    // in the order in which they ended
	tests  int                         // number of top-level tests that ran
}

type timed struct {
	name    string
	seconds float64
}

func newReport(out io.Writer, args []string) *report {
	return &report{out: out, args: args, packages: map[string]*packageReport{}}
}

func (r *report) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		_, _ = r.out.Write(line)
		return
	}
	name := cmp.Or(e.Package, e.ImportPath)
	p := r.packages[name]
	if p == nil {
		p = &packageReport{log: map[string]*strings.Builder{}}
		r.packages[name] = p
	}
	switch e.Action {
	case "output":
		p.write(e.Test, e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnd(e, p)
			return
		}
		r.testEnd(e, p)
	}
}

func (p *packageReport) write(test, output string) {
	if strings.HasPrefix(output, "=== ") { // RUN, PAUSE, CONT, NAME
		return
	}
	if p.log[test] == nil {
		p.log[test] = new(strings.Builder)
	}
	p.log[test].WriteString(output)
}

func (r *report) testEnd(e event, p *packageReport) {
	if !strings.Contains(e.Test, "/") {
		p.tests++
		r.times = append(r.times, timed{e.Package + " " + e.Test, e.Elapsed})
	}
	if e.Action == "fail" {
		p.failed = append(p.failed, e.Test)
	} else {
		delete(p.log, e.Test)
	}
}

func (r *report) packageEnd(e event, p *packageReport) {
	word := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "none"}[e.Action]
	fmt.Fprintf(r.out, "%s  %-36s %7.1f s  %d tests\n", word, e.Package, e.Elapsed, p.tests)
	if e.Action == "fail" {
		r.failures(e.Package, p)
	}
	delete(r.packages, e.Package)
}

// failures prints the logs of the failed tests. For a package that failed in another way (a panic, a time-out, TestMain), it prints all output
// that belongs to no test.
func (r *report) failures(name string, p *packageReport) {
	for _, test := range p.failed {
		// A test that failed only because a subtest did has no log of its own.
		part := slices.ContainsFunc(p.failed, func(other string) bool { return strings.HasPrefix(other, test+"/") })
		text := p.text(test)
		if part && strings.Count(text, "\n") <= 1 {
			continue
		}
		fmt.Fprintf(r.out, "\n%s\n    alone: %s\n\n", strings.TrimRight(text, "\n"), r.alone(name, test))
	}
	// A test without a result ended the package, or was running when it ended.
	for _, test := range slices.Sorted(maps.Keys(p.log)) {
		if !slices.Contains(p.failed, test) && (test == "" || len(p.failed) == 0) {
			fmt.Fprintf(r.out, "%s\n", strings.TrimRight(p.text(test), "\n"))
		}
	}
}

func (p *packageReport) text(test string) string {
	if p.log[test] == nil {
		return ""
	}
	return p.log[test].String()
}

// alone returns the command that runs one test alone, with the same flags.
func (r *report) alone(name, test string) string {
	var words []string
	for _, variable := range os.Environ() {
		if set, value, _ := strings.Cut(variable, "="); strings.HasPrefix(set, "AUDITSTREAM_TEST_") || set == "TEST_POSTGRES_IMAGE" {
			words = append(words, set+"="+value)
		}
	}
	words = append(words, "go", "test")
	for k := 0; k < len(r.args); k++ {
		flag, _, joined := strings.Cut(strings.TrimLeft(r.args[k], "-"), "=")
		switch {
		case !strings.HasPrefix(r.args[k], "-"): // a package
		case slices.Contains([]string{"run", "skip", "p", "parallel", "count", "timeout"}, flag):
			if !joined {
				k++
			}
		case flag == "tags" && !joined && k+1 < len(r.args):
			words = append(words, r.args[k], r.args[k+1])
			k++
		default:
			words = append(words, r.args[k])
		}
	}
	var parts []string
	for part := range strings.SplitSeq(test, "/") {
		parts = append(parts, "^"+regexp.QuoteMeta(part)+"$")
	}
	return strings.Join(append(words, "-count=1", "-run", "'"+strings.Join(parts, "/")+"'", name), " ")
}

// end prints the slowest tests, and the packages without a result.
func (r *report) end() {
	for name, p := range r.packages {
		if len(p.log) > 0 {
			fmt.Fprintf(r.out, "FAIL  %s has not ended\n", name)
			r.failures(name, p)
		}
	}
	if len(r.times) == 0 {
		return
	}
	slices.SortStableFunc(r.times, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	fmt.Fprintln(r.out, "The slowest:")
	for _, t := range r.times[:min(slowest, len(r.times))] {
		fmt.Fprintf(r.out, "%7.1f s  %s\n", t.seconds, t.name)
	}
}
