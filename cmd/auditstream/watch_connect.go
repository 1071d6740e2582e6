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
	watchRetryDefault = 3 * time.Second // until the server has said otherwise
	watchRetryMax     = 5 * time.Minute
	watchSilence      = time.Minute            // until the server has said otherwise
	watchAtOnce       = 500 * time.Millisecond // within which a stream that was cut is taken up again
	watchBrief        = time.Second            // streams that are cut sooner, again and again, are taken up later and later
)

// attempt is what became of one connection.
type attempt struct {
	done    bool // there is nothing to come back for
	orderly bool // the body came to its end
	cut     bool // a stream's end that the server had not announced
	lasted  time.Duration
	after   time.Duration // when whoever answered wants to be asked again
	err     error
}

// delay is how long to wait before the next connection.
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

var errSilent = errors.New("nothing comes through")

// connect is one connection, from the request to its end.
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
		return attempt{err: errors.New("the answer is not an event stream")} // a proxy's own page
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

// connectError says in words why there was no answer.
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

// alarmed is a body whose bytes put off an alarm.
type alarmed struct {
	io.Reader
	heard func()
}

func (b alarmed) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.heard()
	return n, err
}

// read takes events until one of them, or the end of the body, ends the stream.
func (f *rowsWatch) read(body io.Reader, alarm *time.Timer) attempt {
	heard := func() { alarm.Reset(f.silence) }
	reader := newEventReader(alarmed{body, heard}, f.lastEventID)
	reader.onHeartbeat = func(every time.Duration) {
		f.silence = max(2*every, every+5*time.Second) // a second or two are not enough for a network
		heard()
	}
	var last error // that the server told
	for {
		e, err := reader.next()
		if reader.retry >= 0 {
			f.retry = min(reader.retry, watchRetryMax)
		}
		if err != nil {
			announced := last != nil || reader.retries > 1 // the first retry opens a stream
			f.lastEventID = reader.id                      // a block without data may have brought it
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
		case w.Key != "": // a status may be empty
			if err := f.saw(w, e); err != nil {
				return attempt{done: true, err: err}
			}
			if len(f.open) == 0 && f.rows.keys != nil {
				return attempt{done: true, err: f.verdict()}
			}
		case w.Error == "Cross-user access denied", w.Error == "Audit not found", w.Error == "No such row", w.Error == "Token expired":
			return attempt{done: true, err: f.refused(errors.New(w.Error))}
		default:
			last = errors.New(w.Error)
		}
	}
}

// answer is the end, or the failure, that an answer which is no stream means: only one of ours is an end.
func (f *rowsWatch) answer(resp *http.Response) attempt {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it
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
	case resp.StatusCode == http.StatusNoContent: // the end has been seen
		return attempt{done: true, err: f.verdict()}
	case resp.StatusCode == http.StatusUnauthorized:
		err = fmt.Errorf("%w (%s)", err, f.tokenRemedy())
	}
	return attempt{done: true, err: f.refused(err)}
}

// retryAfter is the header's time, within bounds: anybody may have answered.
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
