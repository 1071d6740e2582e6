package harness

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// Traffic is what the API of one instance has answered to the suite's clients, held against openapi.yaml: what is not
// described fails the instance's test. Clients that go through recorded are judged, http.DefaultClient among them; crowds that
// are there for the load are not.
type Traffic struct {
	Mu    sync.Mutex
	Marks map[string]bool
	wrong map[string]bool
}

var trafficOf sync.Map // the host of an instance's API: its *Traffic

// record begins to judge the answers of an instance, until the test ends.
func (i *Instance) record(t testing.TB) {
	t.Helper()
	u, err := url.Parse(i.URL)
	NoError(t, err)
	i.Traffic = &Traffic{Marks: map[string]bool{}, wrong: map[string]bool{}}
	trafficOf.Store(u.Host, i.Traffic)
	t.Cleanup(func() {
		trafficOf.CompareAndDelete(u.Host, i.Traffic) // a later instance may have the port
		i.Traffic.Mu.Lock()
		defer i.Traffic.Mu.Unlock()
		for _, fault := range slices.Sorted(maps.Keys(i.Traffic.wrong)) {
			t.Errorf("openapi.yaml: %s", fault)
		}
	})
}

// Judge holds an answer against openapi.yaml.
func (a *Traffic) Judge(r *http.Request, resp *http.Response, body []byte) {
	d, err := ReadDescription()
	var marks, wrong []string
	if err == nil {
		marks, wrong, _ = d.judge(r, resp, body)
	} else {
		wrong = []string{err.Error()}
	}
	a.Mu.Lock()
	defer a.Mu.Unlock()
	for _, m := range marks {
		a.Marks[m] = true
	}
	for _, w := range wrong {
		a.wrong[w] = true
	}
}

// Recorded is a transport whose answers are judged, if an instance gave them, when their bodies have been read or closed.
type Recorded struct{ http.RoundTripper }

func (c Recorded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if a, ok := trafficOf.Load(r.URL.Host); ok {
		stream := resp.StatusCode == http.StatusOK && resp.ContentLength < 0
		resp.Body = &recordedBody{ReadCloser: resp.Body, rest: !stream, over: func(body []byte, whole bool) {
			// Its client may have left before all of an answer came, of which a part says nothing.
			if whole || stream {
				a.(*Traffic).Judge(r, resp, body)
			}
		}}
	}
	return resp, nil
}

func (c Recorded) CloseIdleConnections() {
	(&http.Client{Transport: c.RoundTripper}).CloseIdleConnections()
}

// recordedBody keeps what is read, of long streams the beginning.
type recordedBody struct {
	io.ReadCloser
	rest bool       // what the client does not read is read when it closes, because it ends soon
	mu   sync.Mutex // a body may be closed while it is read
	kept []byte
	over func(body []byte, whole bool)
}

func (b *recordedBody) Read(p []byte) (int, error) {
	const most = 1 << 20
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	b.kept = append(b.kept, p[:min(n, max(0, most-len(b.kept)))]...)
	b.mu.Unlock()
	if errors.Is(err, io.EOF) {
		b.end(true)
	}
	return n, err
}

func (b *recordedBody) Close() error {
	if b.rest {
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{b}) // its end is in Read; an error leaves a part
	}
	b.end(false)
	return b.ReadCloser.Close()
}

func (b *recordedBody) end(whole bool) {
	b.mu.Lock()
	over, kept := b.over, b.kept
	b.over, b.kept = nil, nil
	b.mu.Unlock()
	if over != nil {
		over(kept, whole)
	}
}
