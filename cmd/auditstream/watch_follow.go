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

// watchDisplay shows states and failures. Only one goroutine uses it.
type watchDisplay interface {
	// event shows a state; data is the event's unparsed data.
	event(w rowState, data string) error
	// begin is called at the beginning of each stream.
	begin()
	// note shows a line of text, such as why a connection has ended.
	note(text string)
	close()
}

// rowsWatch follows rows over one connection at a time, as the browser's client does. The server sends the current states first on each
// connection, so rowsWatch only has to reconnect, and to know when not to.
type rowsWatch struct {
	client      *http.Client
	base, token string
	until       int // progress in per cent after which a row is watched no more
	show        watchDisplay

	rows        rowSelection
	open        []store.Key // the rows that are still watched
	states      map[store.Key]rowState
	lastEventID string
	retry       time.Duration
	failures    int           // consecutive attempts without a state
	cuts        int           // consecutive streams that had a state and were cut within watchBrief
	silence     time.Duration // a stream without a byte for this long counts as lost
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

// names returns the names of the rows that are still watched.
func (f *rowsWatch) names() string { return f.rows.names(f.open) }

// address returns the stream's URL, without the rows that have ended: a row may be deleted by now, and then the server would refuse all.
func (f *rowsWatch) address() string { return f.base + f.rows.path(f.open) }

// refusedError returns the error that ends watch after the server's refusal.
func (f *rowsWatch) refusedError(reason error) error {
	return exitError{exitRefused, fmt.Errorf("%s: %s", f.names(), printable(reason.Error()))}
}

// recordState records a state and shows it. The error is the display's.
func (f *rowsWatch) recordState(w rowState, e streamEvent) error {
	key, ok := f.rows.find(f.open, w.Key)
	if !ok {
		return nil // the row has reached until or ended, or was not asked for
	}
	w.Key, f.lastEventID, f.failures = key, e.id, 0
	if f.rows.keys != nil {
		f.states[key] = w
	}
	if w.terminal() || f.until < 100 && w.Progress >= f.until {
		f.open = slices.DeleteFunc(slices.Clone(f.open), func(k store.Key) bool { return k == key })
	}
	if err := f.show.event(w, e.data); err != nil {
		return fmt.Errorf("write: %w", err) // the reader of the output has gone
	}
	return nil
}

// verdict returns watch's outcome by the rows' last states: an exitError if one has failed.
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
