package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// watchDisplay shows what happens. It is used by one goroutine.
type watchDisplay interface {
	// event shows a state; data is the event as it came.
	event(w watched, data string) error
	// note shows why a connection has ended, and that another follows.
	note(text string)
	close()
}

// auditsWatch follows audits over one connection. It does what the browser's client does: the server sends the whole current
// states first on every connection, so all that there is to do is to come back, and to know when not to.
type auditsWatch struct {
	client      *http.Client
	base, token string
	until       int // per cent
	show        watchDisplay

	open        []int64 // audits that are still watched
	states      map[int64]watched
	lastEventID string
	retry       time.Duration
	failures    int           // attempts in a row that brought no state
	cuts        int           // streams in a row that brought one and were cut soon
	silence     time.Duration // for which no byte may come before a stream counts as lost
}

// follow blocks until all audits have ended, the server refuses, or ctx is done.
func (f *auditsWatch) follow(ctx context.Context) error {
	f.retry, f.silence = watchRetryDefault, watchSilence
	for {
		f.failures++
		a := f.connect(ctx)
		if a.done {
			return a.err
		}
		if ctx.Err() == nil {
			delay := f.delay(a)
			f.show.note(fmt.Sprintf("%s: %s; trying again in %v", f.names(), printable(a.err.Error()), delay.Round(100*time.Millisecond)))
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: stopped before the end", f.names())
		}
	}
}

// names says which audits are still watched.
func (f *auditsWatch) names() string {
	if len(f.open) == 1 {
		return fmt.Sprintf("audit %d", f.open[0])
	}
	const named = 5
	names := "audits " + joinIDs(f.open[:min(len(f.open), named)], ", ")
	if more := len(f.open) - named; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return names
}

// address leaves out what has ended: it may not even exist any more, and would have all refused.
func (f *auditsWatch) address() string {
	if len(f.open) == 1 {
		return fmt.Sprintf("%s/api/v1/sse/audits/%d/progress", f.base, f.open[0])
	}
	return f.base + "/api/v1/sse/audits/progress?ids=" + joinIDs(f.open, ",")
}

func joinIDs(ids []int64, separator string) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, strconv.FormatInt(id, 10))
	}
	return strings.Join(texts, separator)
}

// refused is the end that the server's refusal means.
func (f *auditsWatch) refused(reason error) error {
	return exitError{exitRefused, fmt.Errorf("%s: %s", f.names(), printable(reason.Error()))}
}

// saw notes a state, and shows it. The error is the display's.
func (f *auditsWatch) saw(w watched, e streamEvent) error {
	if !slices.Contains(f.open, w.AuditID) {
		return nil // as far as was asked for, or not asked for
	}
	f.lastEventID, f.states[w.AuditID], f.failures = e.id, w, 0
	if w.terminal() || f.until < 100 && w.Progress >= f.until {
		f.open = slices.DeleteFunc(slices.Clone(f.open), func(id int64) bool { return id == w.AuditID })
	}
	if err := f.show.event(w, e.data); err != nil {
		return fmt.Errorf("write: %w", err) // nobody reads any more
	}
	return nil
}

// verdict is the end that the last states mean.
func (f *auditsWatch) verdict() error {
	var reasons []string
	for _, id := range slices.Sorted(maps.Keys(f.states)) {
		w := f.states[id]
		if w.Status != "failed" {
			continue
		}
		reason := fmt.Sprintf("audit %d: failed", id)
		if w.Error != "" {
			reason += ": " + printable(w.Error)
		}
		reasons = append(reasons, reason)
	}
	if reasons == nil {
		return nil
	}
	return exitError{exitAuditFailed, errors.New(strings.Join(reasons, "; "))}
}

func (f *auditsWatch) tokenRemedy() string {
	if f.token == "" {
		return "set AUDITSTREAM_TOKEN to a token of the audit's owner"
	}
	return "it has expired, or is signed with another key or made for another service than serve is configured for: get a new one; auditstream token makes one with serve's JWT_SECRET"
}
