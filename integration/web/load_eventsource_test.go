package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/chromedp/chromedp"
)

// sourceNote is what a page notes of its EventSource.
type sourceNote struct {
	Type  string `json:"type"`
	State int    `json:"state"` // readyState: 0 connecting, 1 open, 2 closed for good
	Data  string `json:"data"`
	At    int    `json:"at"` // ms
}

// A browser's own EventSource gives up for good at any status but 200. At a limit it must stay alive, wait at random
// around its retry time, and get in as soon as there is room.
func TestLoadRefusedEventSourceGetsInWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	const retry = 1000
	db, i := harness.ServeNew(t, "SSE_MAX_STREAMS_PER_USER=1", "SSE_AUTH_COOKIE=session", fmt.Sprint("SSE_RETRY_MS=", retry))
	id := db.InsertMany(t, 1)[0]
	first := i.Shown(t, id, harness.AliceToken(t))

	p := openPage(t, i.URL+"/healthz") // any page of the same origin
	p.eval(t, fmt.Sprintf(`document.cookie = 'session=%s; SameSite=Strict'; window.notes = [];
		window.note = (type, data) => notes.push({type, data, state: source.readyState, at: Math.round(performance.now())});
		window.source = new EventSource('/api/v1/sse/audits/%s/progress');
		source.onopen = () => note('open', '');
		source.onerror = () => note('error', '');
		source.onmessage = event => note('message', event.data);`, harness.AliceToken(t), id))
	const refusals = `notes.filter(n => n.data === '{"error":"Too many streams"}')`
	p.wait(t, "five refusals", refusals+`.length >= 5`)
	first.Cancel()
	i.WaitMetric(t, harness.StreamsOpen, func(open float64) bool { return open == 0 || p.is(t, `source.readyState === 1`) })
	from, before := time.Now(), i.Metric(t, `auditstream_requests_refused_total{reason="too many streams"}`)
	p.wait(t, "the audit's state", `notes.some(n => n.data.includes('"audit_id"'))`)
	took := time.Since(from)
	if more := i.Metric(t, `auditstream_requests_refused_total{reason="too many streams"}`) - before; more > 1 { // one may be on its way
		t.Errorf("%v more refusals after the place was free", more)
	}
	db.SetAll(t, 7)
	p.wait(t, "an update", `notes.at(-1).data.includes('"total_pages":7')`)

	var notes []sourceNote
	harness.NoError(t, json.Unmarshal([]byte(p.json(t, "notes")), &notes))
	var waits []int
	for k, n := range notes {
		switch {
		case n.State == 2:
			t.Errorf("%s closed the EventSource for good", n.Type)
		case n.Type == "open" && k > 0:
			wait := n.At - notes[k-1].At // since the error event that told the page that it reconnects
			waits = append(waits, wait)
			if wait < retry/2-50 || wait > 3*retry/2+2000 { // a busy machine is late, never early
				t.Errorf("the browser came back after %d ms, want %d ms give or take a half", wait, retry)
			}
		}
	}
	if slices.Max(waits)-slices.Min(waits) < retry/16 { // of five waits or more: less than one in 100,000
		t.Errorf("the browser came back after %v ms, want times at random", waits)
	}
	t.Logf("came back after %v ms; got in %v after the place was free", waits, took.Round(time.Millisecond))
}

// is evaluates a JavaScript condition.
func (p *page) is(t testing.TB, expression string) bool {
	t.Helper()
	return p.json(t, expression) == "true"
}

// json evaluates a JavaScript expression.
func (p *page) json(t testing.TB, expression string) string {
	t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("JSON.stringify("+expression+")"))
	harness.NoError(t, err)
	return text
}
