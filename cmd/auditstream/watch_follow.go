package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	watchBackoffMax   = 30 * time.Second
	watchRetryDefault = 3 * time.Second // until the server has said otherwise
	watchRetryMax     = 5 * time.Minute
)

// watchReport is what a auditWatch tells: an event, an attempt that failed, or, last, the end.
type watchReport struct {
	id      int64
	data    string        // of an event
	err     error         // why the attempt failed; with ended, why the audit did not come to a good end
	retryIn time.Duration // when the next attempt follows
	ended   bool
}

// auditWatch follows one audit. It does what the browser's client does: the server sends the whole current state first on
// every connection, so all that there is to do is to come back, and to know when not to.
type auditWatch struct {
	client *http.Client
	url    string
	token  string
	until  int // per cent

	lastEventID string
	retry       time.Duration
	failures    int // attempts in a row that brought no state
	last        watched
}

// follow blocks until the audit has ended, the server refuses, or ctx is done, and reports that last.
func (f *auditWatch) follow(ctx context.Context, id int64, reports chan<- watchReport) {
	f.retry = watchRetryDefault
	event := func(data string) { reports <- watchReport{id: id, data: data} }
	for {
		f.failures++
		done, orderly, err := f.connect(ctx, event)
		if ctx.Err() != nil && !done {
			err, done = fmt.Errorf("audit %d: stopped before it had ended", id), true
		}
		if done {
			reports <- watchReport{id: id, err: f.named(id, err), ended: true}
			return
		}
		delay := watchBackoff(f.failures, f.retry, orderly)
		reports <- watchReport{id: id, err: err, retryIn: delay}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

func (f *auditWatch) named(id int64, err error) error {
	if e, ok := errors.AsType[exitError](err); ok {
		return exitError{e.code, fmt.Errorf("audit %d: %s", id, printable(e.error.Error()))}
	}
	return err
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
func (f *auditWatch) connect(ctx context.Context, event func(data string)) (done, orderly bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
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
		return true, true, exitError{exitRefused, fmt.Errorf("%w (%s)", answerText(resp), f.tokenRemedy())}
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return true, true, exitError{exitRefused, answerText(resp)}
	default:
		return false, false, answerText(resp)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		return false, false, errors.New("the answer is not an event stream") // a proxy's own page
	}
	return f.read(resp.Body, event)
}

// read takes events until one of them, or the end of the body, ends the stream.
func (f *auditWatch) read(body io.Reader, event func(data string)) (done, orderly bool, err error) {
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
		case w.Status != "":
			f.lastEventID, f.last, f.failures = e.id, w, 0
			event(e.data)
			if w.Status == "completed" || w.Status == "failed" || f.until < 100 && w.Progress >= f.until {
				return true, true, f.verdict()
			}
		case w.Error == "Cross-user access denied", w.Error == "Audit not found", w.Error == "Token expired":
			return true, true, exitError{exitRefused, errors.New(w.Error)}
		default:
			last = errors.New(w.Error)
		}
	}
}

// verdict is the end that the last state means.
func (f *auditWatch) verdict() error {
	if f.last.Status != "failed" {
		return nil
	}
	reason := "failed"
	if f.last.Error != "" {
		reason += ": " + f.last.Error
	}
	return exitError{exitAuditFailed, errors.New(reason)}
}

func (f *auditWatch) tokenRemedy() string {
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
