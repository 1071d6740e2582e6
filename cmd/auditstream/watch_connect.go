package main

import (
	"cmp"
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
	"strconv"
	"time"

	"auditstream/internal/server"
)

const (
	watchBackoffMax   = 30 * time.Second
	watchRetryDefault = 3 * time.Second // until the server sends a retry field
	watchRetryMax     = 5 * time.Minute
	watchSilence      = time.Minute            // a stream without a byte for this long is lost; until the server sends its heartbeat's interval
	watchAtOnce       = 500 * time.Millisecond // the longest delay after a first cut; it doubles while streams are cut soon
	watchBrief        = time.Second            // a stream that is cut sooner counts in cuts, which lengthen the delay
)

// attempt is the outcome of one connection.
type attempt struct {
	done    bool // watch ends: there is nothing to reconnect for
	orderly bool // the body was complete
	cut     bool // the stream ended without notice by the server
	lasted  time.Duration
	after   time.Duration // the answer's Retry-After
	err     error
}

// delay returns how long to wait before the next connection.
func (f *rowsWatch) delay(a attempt) time.Duration {
	if !a.cut || f.failures > 0 {
		f.cuts = 0
		delay := watchBackoff(f.failures, f.retry, a.orderly)
		if a.after > 0 {
			delay = max(delay, a.after+rand.N(time.Second))
		}
		return delay
	}
	if f.cuts++; a.lasted >= watchBrief {
		f.cuts = 0
	}
	return rand.N(min(watchAtOnce<<min(max(f.cuts-1, 0), 20), max(f.retry, 100*time.Millisecond)))
}

// watchBackoff returns the back-off: a random time ("full jitter") up to a bound that doubles with each failure. If the server ended the
// stream itself, it is at least the server's retry time, by which the server spreads its clients.
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

var errSilent = errors.New("nothing comes through")

// connect makes one connection and reads it to its end.
func (f *rowsWatch) connect(ctx context.Context) attempt {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(f.silence, func() { cancel(errSilent) })
	defer alarm.Stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.address(), nil)
	if err != nil {
		return attempt{done: true, err: fmt.Errorf("make request: %w", err)}
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
		return attempt{err: connectError(ctx, err)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return f.answer(resp)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		return attempt{err: errors.New("the answer is not an event stream")} // probably a proxy's own page
	}
	began := time.Now()
	f.show.begin()
	a := f.read(resp.Body, alarm)
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return attempt{err: cause}
	}
	a.lasted = time.Since(began)
	return a
}

// connectError returns the error of a request without an answer, with the remedy.
func connectError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		err = fmt.Errorf("%w (is auditstream serve running there? AUDITSTREAM_URL or --url says where)", err)
	}
	return err
}

// activityReader calls heard after each read of a body.
type activityReader struct {
	io.Reader
	heard func()
}

func (b activityReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.heard()
	return n, err
}

// read reads events until one of them, or the end of the body, ends the stream.
func (f *rowsWatch) read(body io.Reader, alarm *time.Timer) attempt {
	heard := func() { alarm.Reset(f.silence) }
	reader := newEventReader(activityReader{body, heard}, f.lastEventID)
	reader.onHeartbeat = func(every time.Duration) {
		f.silence = max(2*every, every+5*time.Second) // 5 s at least, because networks may delay a heartbeat by a second or two
		heard()
	}
	var last error // the server's last error event
	for {
		e, err := reader.next()
		if reader.retry >= 0 {
			f.retry = min(reader.retry, watchRetryMax)
		}
		if err != nil {
			announced := last != nil || reader.retries > 1 // the first retry field is a stream's opening
			f.lastEventID = reader.id                      // may come from a block without data, which is no event
			if err != io.EOF {
				return attempt{orderly: announced, cut: !announced, err: cmp.Or(last, fmt.Errorf("connection lost: %w", err))}
			}
			return attempt{orderly: true, cut: !announced, err: cmp.Or(last, errors.New("the stream has ended"))}
		}
		if reader.name == "more" {
			f.show.note(f.names() + ": there are more; these are the newest that have not ended")
		}
		w, ok := f.rows.parse(e.data)
		w.End = reader.end
		switch {
		case !ok, reader.name != "message":
		case w.Key != "": // not by the status, which may be empty
			if err := f.recordState(w, e); err != nil {
				return attempt{done: true, err: err}
			}
			if len(f.open) == 0 && f.rows.keys != nil {
				return attempt{done: true, err: f.verdict()}
			}
		case w.Error == "Cross-user access denied", w.Error == "Audit not found", w.Error == "No such row", w.Error == "Token expired":
			return attempt{done: true, err: f.refusedError(errors.New(w.Error))}
		default:
			last = errors.New(w.Error)
		}
	}
}

// answer returns the outcome of an answer that is no stream. Only an answer of our server that is final ends watch; others may come from a
// proxy.
func (f *rowsWatch) answer(resp *http.Response) attempt {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // an incomplete body will do
	var told struct {
		Error string `json:"error"`
	}
	err := fmt.Errorf("HTTP status %d", resp.StatusCode)
	if json.Unmarshal(body, &told) == nil && told.Error != "" {
		err = errors.New(told.Error)
	}
	switch {
	case !server.IsFinal(resp, body):
		return attempt{err: err, after: retryAfter(resp)}
	case resp.StatusCode == http.StatusNoContent: // the last state was seen before
		return attempt{done: true, err: f.verdict()}
	case resp.StatusCode == http.StatusUnauthorized:
		err = fmt.Errorf("%w (%s)", err, f.tokenRemedy())
	}
	return attempt{done: true, err: f.refusedError(err)}
}

// retryAfter returns the time in the header Retry-After, at most watchBackoffMax, because the answer may be a proxy's.
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	var after time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = time.Until(at)
	}
	return min(max(after, 0), watchBackoffMax)
}
