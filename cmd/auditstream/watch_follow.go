package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	watchBackoffMax   = 30 * time.Second
	watchRetryDefault = 3 * time.Second // until the server has said otherwise
	watchRetryMax     = 5 * time.Minute
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
	failures    int // attempts in a row that brought no state
}

// follow blocks until all audits have ended, the server refuses, or ctx is done.
func (f *auditsWatch) follow(ctx context.Context) error {
	f.retry = watchRetryDefault
	for {
		f.failures++
		done, orderly, err := f.connect(ctx)
		if done {
			return err
		}
		if ctx.Err() == nil {
			delay := watchBackoff(f.failures, f.retry, orderly)
			f.show.note(fmt.Sprintf("%s: %s; trying again in %v", f.names(), printable(err.Error()), delay.Round(100*time.Millisecond)))
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

// watchBackoff is how long to wait: no less than the server asked for when it ended the stream itself, as it spreads its
// clients; otherwise a random time ("full jitter") up to a bound that doubles with every failure.
func watchBackoff(failures int, retry time.Duration, orderly bool) time.Duration {
	least := time.Duration(0)
	if orderly {
		least = retry
	}
	most := min(watchBackoffMax, max(retry, 100*time.Millisecond)<<min(failures, 20))
	if most <= least {
		return least
	}
	return least + rand.N(most-least)
}

// connect is one connection, from the request to its end. done: there is nothing to come back for; orderly: the server ended it.
func (f *auditsWatch) connect(ctx context.Context) (done, orderly bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.address(), nil)
	if err != nil {
		return true, false, fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if f.token != "" {
		r.Header.Set("Authorization", "Bearer "+f.token)
	}
	if f.lastEventID != "" {
		r.Header.Set("Last-Event-ID", f.lastEventID)
	}
	resp, err := f.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			err = fmt.Errorf("%w (is auditstream serve running there? AUDITSTREAM_URL or --url says where)", err)
		}
		return false, false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent: // the end has been seen
		return true, true, f.verdict()
	case http.StatusUnauthorized:
		return true, true, f.refused(fmt.Errorf("%w (%s)", answerText(resp), f.tokenRemedy()))
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return true, true, f.refused(answerText(resp))
	default:
		return false, false, answerText(resp)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		return false, false, errors.New("the answer is not an event stream") // a proxy's own page
	}
	return f.read(resp.Body)
}

// read takes events until one of them, or the end of the body, ends the stream.
func (f *auditsWatch) read(body io.Reader) (done, orderly bool, err error) {
	reader := newEventReader(body, f.lastEventID)
	last := errors.New("the stream has ended")
	for {
		e, err := reader.next()
		if reader.retry >= 0 {
			f.retry = min(reader.retry, watchRetryMax)
		}
		if err == io.EOF {
			return false, true, last
		}
		if err != nil {
			return false, false, fmt.Errorf("connection lost: %w", err)
		}
		w, ok := parseWatched(e.data)
		switch {
		case !ok:
		case w.AuditID != 0: // a status may be empty
			if err := f.saw(w, e); err != nil {
				return true, true, err
			}
			if len(f.open) == 0 {
				return true, true, f.verdict()
			}
		case w.Error == "Cross-user access denied", w.Error == "Audit not found", w.Error == "Token expired":
			return true, true, f.refused(errors.New(w.Error))
		default:
			last = errors.New(w.Error)
		}
	}
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

// answerText is the reason of an answer that is no stream.
func answerText(resp *http.Response) error {
	var body struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&body); err != nil || body.Error == "" {
		return fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	return errors.New(body.Error)
}
