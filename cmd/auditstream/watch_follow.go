package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"auditstream/internal/store"
)

// watchDisplay shows what happens. It is used by one goroutine.
type watchDisplay interface {
	// event shows a state; data is the event as it came.
	event(w watched, data string) error
	// begin is told that a connection begins.
	begin()
	// note shows why a connection has ended, and that another follows.
	note(text string)
	close()
}

// rowsWatch follows rows over one connection. It does what the browser's client does: the server sends the whole current
// states first on every connection, so all that there is to do is to come back, and to know when not to.
type rowsWatch struct {
	client      *http.Client
	base, token string
	until       int // per cent
	show        watchDisplay

	rows        watchedRows
	open        []store.Key // those of them that are still watched
	states      map[store.Key]watched
	lastEventID string
	retry       time.Duration
	failures    int           // attempts in a row that brought no state
	cuts        int           // streams in a row that brought one and were cut soon
	silence     time.Duration // for which no byte may come before a stream counts as lost
}

// follow blocks until all rows have ended, the server refuses, or ctx is done.
func (f *rowsWatch) follow(ctx context.Context) error {
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

// names says which rows are still watched.
func (f *rowsWatch) names() string { return f.rows.names(f.open) }

// address leaves out what has ended: it may not even exist any more, and would have all refused.
func (f *rowsWatch) address() string { return f.base + f.rows.path(f.open) }

// refused is the end that the server's refusal means.
func (f *rowsWatch) refused(reason error) error {
	return exitError{exitRefused, fmt.Errorf("%s: %s", f.names(), printable(reason.Error()))}
}

// saw notes a state, and shows it. The error is the display's.
func (f *rowsWatch) saw(w watched, e streamEvent) error {
	key, ok := f.rows.asked(f.open, w.Key)
	if !ok {
		return nil // as far as was asked for, or not asked for
	}
	w.Key, f.lastEventID, f.failures = key, e.id, 0
	if f.rows.keys != nil {
		f.states[key] = w
	}
	if w.terminal() || f.until < 100 && w.Progress >= f.until {
		f.open = slices.DeleteFunc(slices.Clone(f.open), func(k store.Key) bool { return k == key })
	}
	if err := f.show.event(w, e.data); err != nil {
		return fmt.Errorf("write: %w", err) // nobody reads any more
	}
	return nil
}

// verdict is the end that the last states mean.
func (f *rowsWatch) verdict() error {
	var reasons []string
	for _, key := range slices.SortedFunc(maps.Keys(f.states), store.Key.Compare) {
		w := f.states[key]
		if w.Status != "failed" && !w.End {
			continue
		}
		reason := f.rows.name(key) + ": " + printable(w.Status)
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

func (f *rowsWatch) tokenRemedy() string {
	if f.token == "" {
		return "set AUDITSTREAM_TOKEN to a token of the owner"
	}
	return "it has expired, or is signed with another key or made for another service than serve is configured for: get a new one; auditstream token makes one with serve's JWT_SECRET"
}
