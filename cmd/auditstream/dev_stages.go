package main

import (
	"fmt"
	"math/rand/v2"
)

// step is one update of a worker; nil is NULL.
type step struct {
	status   string
	progress int
	message  string
	pages    *int
	score    *float64
	failure  *string
}

// stages are the stages of an audit, each with the progress at its end and the messages that it shows.
var stages = []struct {
	end      int
	messages []string
	scored   bool // the score is known afterwards
}{
	{end: 45, messages: []string{
		"Analyzing titles and headings...", "Analyzing structured data...", "Analyzing internal links...",
		"Analyzing page speed...", "Analyzing content...", "Analyzing citations...",
	}},
	{end: 70, messages: []string{
		"Looking for competitors...", "Running competitor analysis (1 of 4)...", "Running competitor analysis (2 of 4)...",
		"Running competitor analysis (3 of 4)...", "Running competitor analysis (4 of 4)...",
	}},
	{end: 85, scored: true, messages: []string{
		"Scoring visibility...", "Scoring structure...", "Scoring authority...", "Computing the GEO score...",
	}},
	{end: 99, messages: []string{"Generating the report...", "Generating the report: charts...", "Generating the report: summary..."}},
}

const (
	crawlSteps = 16
	crawlEnd   = 25 // progress when all pages are crawled
	failAt     = 60 // progress from which on a failing audit ends
)

// steps returns the updates of one audit, from the first page to the end.
func (w worker) steps() []step {
	var steps []step
	s := step{status: "running"}
	for i := range crawlSteps {
		pages := w.pages * (i + 1) / crawlSteps
		s.progress, s.pages = crawlEnd*(i+1)/crawlSteps, &pages
		s.message = fmt.Sprintf("Crawling page %d of %d...", pages, w.pages)
		steps = append(steps, s)
	}
	for _, stage := range stages {
		begin := s.progress
		for i, message := range stage.messages {
			s.progress, s.message = begin+(stage.end-begin)*(i+1)/len(stage.messages), message
			if w.fails && s.progress >= failAt {
				failure := "Competitor analysis failed: rival.example does not answer (time-out after 30 s)."
				s.status, s.failure = "failed", &failure
				return append(steps, s)
			}
			steps = append(steps, s)
		}
		if stage.scored {
			score := float64(400+rand.IntN(550)) / 10
			s.score = &score
		}
	}
	s.status, s.progress, s.message = "completed", 100, "The report is ready."
	return append(steps, s)
}
