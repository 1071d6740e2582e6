// Package bench measures the built binary beside a peer and beside its own plainer forms, and holds the figures against
// the goals: table, raw data and drawing.
//
// The one rule: what is compared was measured in the same run, in turns, by the same load in a process of its own; no
// figure is written down here.
//
// The measuring is in the tests, for Linux alone. `make bench` runs it; go test runs a form of it that takes seconds and
// holds no speed against anything.
package bench
