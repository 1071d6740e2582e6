package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"auditstream/integration/harness"

	"github.com/tmaxmax/go-sse"
)

// readRaw reads the answer of a RawClient to the end of the stream.
func readRaw(r io.Reader, each func(sse.Event, harness.Progress)) error {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for event, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: 4 << 20}) {
		if err != nil {
			return err
		}
		var p harness.Progress
		if err := json.Unmarshal([]byte(event.Data), &p); err != nil {
			return fmt.Errorf("event %q: %w", event.Data, err)
		}
		each(event, p)
	}
	return nil
}

// jitter is a random time below d, for tests that try many interleavings.
func jitter(d time.Duration) <-chan time.Time { return time.After(rand.N(d)) }
